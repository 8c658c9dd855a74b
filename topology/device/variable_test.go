package device

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTheVariablesOfSeveralDevicesAreMerged(t *testing.T) {
	got := Environment([]Variable{
		{Name: "VISIBLE", Value: "3"},
		{Name: "QAT", Value: "0000:3d:01.1", Numbered: true, Role: LegacyEnv},
		{Name: "AESM", Value: "1"},
		{Name: "VISIBLE", Value: "13"},
		{Name: "VISIBLE", Value: "3"},
		{Name: "AESM", Value: "1"},
		{Name: "QAT", Value: "0000:3d:01.2", Numbered: true},
	})
	want := []Variable{
		{Name: "AESM", Value: "1"},
		{Name: "QAT0", Value: "0000:3d:01.1"},
		{Name: "QAT1", Value: "0000:3d:01.2"},
		{Name: "VISIBLE", Value: "3,13"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := Environment(nil); got != nil {
		t.Errorf("no devices have %v", got)
	}
}
