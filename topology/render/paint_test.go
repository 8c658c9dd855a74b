package render_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/topolet/topolet/topology/render"
	"github.com/topolet/topolet/topology/topologytest"
)

func TestColoursChangeNothingButColours(t *testing.T) {
	escapes := regexp.MustCompile("\x1b\\[[0-9]+m")
	for name, spec := range goldens {
		t.Run(name, func(t *testing.T) {
			m := topologytest.New(spec)
			var plain, coloured strings.Builder
			if err := errors.Join(render.Tree(&plain, m, names), render.ColourTree(&coloured, m, names)); err != nil {
				t.Fatal(err)
			}
			if got := escapes.ReplaceAllString(coloured.String(), ""); got != plain.String() {
				t.Errorf("got:\n%s\nwant:\n%s", got, plain.String())
			}
			if strings.Count(coloured.String(), "\x1b[0m") == 0 || strings.Contains(plain.String(), "\x1b") {
				t.Error("no colour, or some where none belongs")
			}
		})
	}
}
