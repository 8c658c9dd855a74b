package allocator

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	goodGrant  = `{"uid":"x","namespace":"n","name":"c","pods":["p"],"parts":[{"request":"r","domain":"numa-0","count":1,"cpus":"1"}]}`
	otherGrant = `{"uid":"other","namespace":"n","name":"other","pods":["q"],"parts":[{"request":"r","domain":"numa-1","count":2,"cpus":"4-5"}]}`
)

func TestBadGrantsDoNotStopTheOthers(t *testing.T) {
	change := func(old, with string) string {
		if !strings.Contains(goodGrant, old) {
			t.Fatalf("%s is not in the grant", old)
		}
		return strings.Replace(goodGrant, old, with, 1)
	}
	for name, test := range map[string]struct {
		bad  []string
		want string
	}{
		"an unknown field":                   {[]string{change(`"name"`, `"extra":1,"name"`)}, `unknown field "extra"`},
		"an unknown field of a part":         {[]string{change(`"domain"`, `"extra":1,"domain"`)}, `unknown field "extra"`},
		"a garbled CPU list":                 {[]string{change(`"cpus":"1"`, `"cpus":"one"`)}, `"one" is not a CPU number`},
		"a count of another type":            {[]string{change(`"count":1`, `"count":"1"`)}, "cannot unmarshal"},
		"no object":                          {[]string{`7`}, "cannot unmarshal number"},
		"null":                               {[]string{`null`}, `uid "" is not the UID of a claim`},
		"an empty uid":                       {[]string{change(`"x"`, `""`)}, `uid "" is not the UID of a claim`},
		"a uid that is a path":               {[]string{change(`"x"`, `"../../x"`)}, `uid "../../x" is not the UID of a claim`},
		"a request that is no name":          {[]string{change(`"request":"r"`, `"request":"a/b"`)}, `request "a/b" is not the name of a request`},
		"a count and a set that differ":      {[]string{change(`"count":1`, `"count":2`)}, "for a count of 2"},
		"an idle CPU of others":              {[]string{change(`"cpus":"1"`, `"cpus":"1","idle":"2"`)}, `of which "2" are idle`},
		"nothing but idle CPUs":              {[]string{change(`"cpus":"1"`, `"cpus":"1","idle":"1"`)}, `of which "1" are idle`},
		"a grant of nothing":                 {[]string{`{"uid":"x","namespace":"n","name":"c","pods":[],"parts":[]}`}, "has no parts"},
		"a CPU granted twice to one claim":   {[]string{change(`]}`, `,{"request":"s","domain":"numa-0","count":1,"cpus":"1"}]}`)}, "granted twice"},
		"a CPU granted to two claims":        {[]string{goodGrant, change(`"x"`, `"y"`)}, "has CPUs 1, and so does grants[2]"},
		"a CPU granted to three claims":      {[]string{goodGrant, change(`"x"`, `"y"`), change(`"x"`, `"z"`)}, "has CPUs 1, and so does grants[3]"},
		"a claim twice, with different CPUs": {[]string{goodGrant, change(`"cpus":"1"`, `"cpus":"2"`)}, "has uid x, and so does grants[2]"},
	} {
		t.Run(name, func(t *testing.T) {
			store := FileStore{Path: filepath.Join(t.TempDir(), "checkpoint.json")}
			// A bad one before and after the good one.
			list := slices.Insert(slices.Clone(test.bad), 1, otherGrant)
			content := `{"version":1,"grants":[` + strings.Join(list, ",") + `]}`
			if err := os.WriteFile(store.Path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			good, err := store.Load()
			var bad *BadGrantsError
			if !errors.As(err, &bad) || !strings.Contains(err.Error(), test.want) || bad.Path != store.Path {
				t.Fatalf("error %v, want one that says %q", err, test.want)
			}
			if len(good) != 1 || good[0].UID != "other" {
				t.Errorf("the good ones are %+v", good)
			}
			aside, err := store.Quarantine(bad, good)
			if err != nil {
				t.Fatal(err)
			}
			var kept checkpoint[json.RawMessage]
			if data, err := os.ReadFile(aside); err != nil || strictly(data, &kept) != nil || kept.Version != checkpointVersion {
				t.Fatalf("kept %s, %v", data, err)
			}
			var texts []string
			for _, text := range kept.Grants {
				var compact strings.Builder
				enc := json.NewEncoder(&compact)
				enc.SetEscapeHTML(false)
				if err := enc.Encode(text); err != nil {
					t.Fatal(err)
				}
				texts = append(texts, strings.TrimSpace(compact.String()))
			}
			if diff := cmp.Diff(test.bad, texts); diff != "" {
				t.Errorf("kept grants (-bad +kept):\n%s", diff)
			}
			if again, err := store.Load(); err != nil || len(again) != 1 || again[0].UID != "other" {
				t.Errorf("afterwards: %+v, %v", again, err)
			}
			// A crash between the two files makes the next start do the same again.
			if err := os.WriteFile(store.Path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			if twice, err := store.Quarantine(bad, good); err != nil || twice != aside {
				t.Errorf("once more: %s, %v; it was %s", twice, err, aside)
			}
		})
	}
}

// TestCPUsOfContradictingGrantsGoToNobody: what one of two grants says may be wrong,
// and which of them cannot be known. Their containers stay, and keep everyone off.
func TestCPUsOfContradictingGrantsGoToNobodyWhileContainersRunOnThem(t *testing.T) {
	store := FileStore{Path: filepath.Join(t.TempDir(), "checkpoint.json")}
	second := strings.Replace(goodGrant, `"x"`, `"y"`, 1)
	if err := os.WriteFile(store.Path, []byte(`{"version":1,"grants":[`+goodGrant+","+second+`]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	good, err := store.Load()
	if bad := (*BadGrantsError)(nil); !errors.As(err, &bad) || len(good) != 0 {
		t.Fatalf("loaded %+v, %v", good, err)
	}
	l := newLedger(t, store, good...)
	// In truth x was on CPU 2, where its container runs, and y on CPU 1.
	running := func(claim, cpus string) Container {
		c := claiming("of-"+claim, "p", claim)
		c.Started, c.Observed = true, set(t, cpus)
		return c
	}
	l.Sync([]Container{running("x", "2"), running("y", "1")})
	if moved := l.Updates(); len(moved) != 0 {
		t.Errorf("moved: %+v", moved)
	}
	if pool := l.Pool(); pool.Intersects(set(t, "1-2")) {
		t.Errorf("the shared pool is %s", pool)
	}
	if g := grant(t, l, claim("further"), cpus(1, "numa-0")); g.CPUs().Intersects(set(t, "1-2")) {
		t.Errorf("a further claim got %s", g.CPUs())
	}
	if g, err := l.Grant(claim("too-much"), cpus(1, "numa-0")); err == nil {
		t.Errorf("one claim too much got %s", g.CPUs())
	}
	if _, err := l.Admit(claiming("again", "p", "x")); err == nil {
		t.Error("a further container of an unknown claim was let in")
	}
	if found := l.Conflicts(); len(found) != 2 {
		t.Errorf("conflicts: %+v", found)
	}
	l.Remove("of-x")
	l.Remove("of-y")
	if g := grant(t, l, claim("later"), cpus(2, "numa-0")); !g.CPUs().Equals(set(t, "1-2")) {
		t.Errorf("after the containers have ended a claim got %s", g.CPUs())
	}
}

func FuzzLoad(f *testing.F) {
	for _, grants := range []string{goodGrant, goodGrant + "," + otherGrant, goodGrant + "," + goodGrant, "null", ""} {
		f.Add([]byte(`{"version":1,"grants":[` + grants + `]}`))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		store := FileStore{Path: filepath.Join(t.TempDir(), "checkpoint.json")}
		if err := os.WriteFile(store.Path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		good, err := store.Load()
		if bad, ok := errors.AsType[*BadGrantsError](err); ok {
			if _, err := store.Quarantine(bad, good); err != nil {
				t.Fatal(err)
			}
			again, err := store.Load()
			if err != nil || len(again) != len(good) {
				t.Fatalf("loaded %d good grants, then %d, %v", len(good), len(again), err)
			}
		}
	})
}
