package topology_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/topology"
)

func TestParseCPUSet(t *testing.T) {
	for name, tc := range map[string]struct {
		list, want string
	}{
		"nothing":                          {"", ""},
		"white space":                      {" \n", ""},
		"one CPU":                          {"7\n", "7"},
		"ranges are put together":          {"0-3,4,5-63,64,127-128", "0-64,127-128"},
		"order and repetition are no harm": {"8,0-3,2-5,8", "0-5,8"},
		"a range over many words":          {"3-700", "3-700"},
		"a range that ends with a word":    {"0-63,128-191", "0-63,128-191"},
		"the highest CPU":                  {"16383", "16383"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := topology.ParseCPUSet(tc.list)
			if err != nil {
				t.Fatal(err)
			}
			if got.String() != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
			if again := parse(t, got.String()); !again.Equals(got) {
				t.Errorf("%s reads as %s", got, again)
			}
		})
	}
}

func TestParseCPUSetRefuses(t *testing.T) {
	for _, list := range []string{
		"(null)", "a", "-1", "1-", "3-1", "1,,2", ",", "0-16384", "0-4294967295", "99999999999999999999",
		"1 2", "0-3:1/2", "\xff\xfe", strings.Repeat("x", 1<<16),
	} {
		if set, err := topology.ParseCPUSet(list); err == nil {
			t.Errorf("%.20q: got %s", list, set)
		} else if len(err.Error()) > 300 {
			t.Errorf("%.20q: an error of %d characters", list, len(err.Error()))
		}
	}
}

func TestParseCPUMask(t *testing.T) {
	for mask, want := range map[string]string{
		"":                         "",
		"1":                        "0",
		"f\n":                      "0-3",
		"ffff,ffffffff":            "0-47",
		"80000000,00000000":        "63",
		"00000001,00000000,000000": "64",
	} {
		got, err := topology.ParseCPUMask(mask)
		if err != nil {
			t.Errorf("%q: %v", mask, err)
		} else if got.String() != want {
			t.Errorf("%q: got %s, want %s", mask, got, want)
		}
	}
	for _, mask := range []string{"g", "1ffffffff", ",", "0x1", "-1", strings.Repeat("0,", 600) + "1"} {
		if set, err := topology.ParseCPUMask(mask); err == nil {
			t.Errorf("%.20q: got %s", mask, set)
		}
	}
}

func TestCPUSetOperations(t *testing.T) {
	var zero topology.CPUSet
	a, b := parse(t, "0-3,100"), parse(t, "2-5")
	for name, tc := range map[string]struct {
		got  topology.CPUSet
		want string
	}{
		"union":                            {a.Union(b), "0-5,100"},
		"intersection":                     {a.Intersection(b), "2-3"},
		"difference":                       {a.Difference(b), "0-1,100"},
		"difference from the shorter":      {b.Difference(a), "4-5"},
		"union with the zero value":        {zero.Union(b), "2-5"},
		"intersection with the zero value": {a.Intersection(zero), ""},
		"difference of the zero value":     {zero.Difference(a), ""},
	} {
		if tc.got.String() != tc.want {
			t.Errorf("%s: got %s, want %s", name, tc.got, tc.want)
		}
	}
	if a.String() != "0-3,100" || b.String() != "2-5" {
		t.Errorf("the operands changed: %s, %s", a, b)
	}
	for name, holds := range map[string]bool{
		"the zero value is empty":              zero.IsEmpty() && zero.Size() == 0 && zero.First() == topology.None,
		"the zero value equals the empty list": zero.Equals(parse(t, "")) && parse(t, "").Equals(zero),
		"the zero value is in every set":       zero.IsSubsetOf(a) && !a.IsSubsetOf(zero),
		"sets of different length may be equal": topology.NewCPUSet(1).
			Equals(parse(t, "1,300").Difference(parse(t, "300"))),
		"a set contains its CPUs":     a.Contains(100) && !a.Contains(99) && !a.Contains(-1) && !a.Contains(1<<20),
		"the first CPU is the lowest": b.First() == 2,
		"sets intersect":              a.Intersects(b) && a.IntersectionSize(b) == 2 && !a.Intersects(parse(t, "4-99")),
		"lists are ascending":         slices.Equal(a.List(), []int{0, 1, 2, 3, 100}),
	} {
		if !holds {
			t.Error("does not hold:", name)
		}
	}
}

func TestCPUSetAsText(t *testing.T) {
	text, err := parse(t, "0-3,8").MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("0-3,8", string(text)); diff != "" {
		t.Error(diff)
	}
	var set topology.CPUSet
	if err := set.UnmarshalText([]byte("4-5")); err != nil || set.String() != "4-5" {
		t.Errorf("got %s, %v", set, err)
	}
	if err := set.UnmarshalText([]byte("x")); err == nil || set.String() != "4-5" {
		t.Errorf("after an error: got %s, %v", set, err)
	}
}
