package draplugin

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTheChartHasTheClassesThatTheProgramKnows(t *testing.T) {
	chart, err := chartClasses()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Classes(furtherLevels...), chart); diff != "" {
		t.Errorf("(-program +chart):\n%s", diff)
	}
}
