package crashpoint

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A point that is not listed is not tested, and one that no code reaches tests
// nothing.
func TestEveryPointIsListedAndReachedInOnePlace(t *testing.T) {
	files := token.NewFileSet()
	var declared []string
	reached := map[string]int{}
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if d.IsDir() && (rel == "test" || strings.HasPrefix(d.Name(), ".") && rel != ".") {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(files, path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ValueSpec:
				if kind, ok := n.Type.(*ast.Ident); ok && kind.Name == "Point" && file.Name.Name == "crashpoint" {
					for _, name := range n.Names {
						declared = append(declared, name.Name)
					}
				}
			case *ast.CallExpr:
				if called(n.Fun, "Reached") && len(n.Args) == 1 {
					if point, ok := n.Args[0].(*ast.SelectorExpr); ok {
						reached[point.Sel.Name]++
					}
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(declared) != len(All()) {
		t.Errorf("%d points are declared (%v), All lists %d", len(declared), declared, len(All()))
	}
	slices.Sort(declared)
	if diff := cmp.Diff(declared, slices.Sorted(maps.Keys(reached))); diff != "" {
		t.Errorf("points (-declared +reached):\n%s", diff)
	}
	for name, n := range reached {
		if n != 1 {
			t.Errorf("%s is reached in %d places: which of them would the test see?", name, n)
		}
	}
	seen := map[Point]bool{}
	for _, p := range All() {
		if p == "" || seen[p] {
			t.Errorf("point %q is listed twice or has no name", p)
		}
		seen[p] = true
	}
}

func called(fun ast.Expr, name string) bool {
	selector, ok := fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	from, ok := selector.X.(*ast.Ident)
	return ok && from.Name == "crashpoint" && selector.Sel.Name == name
}
