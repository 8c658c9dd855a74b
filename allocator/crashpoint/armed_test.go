//go:build crashpoints

package crashpoint

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestTheProcessEndsWhereTheFileSays(t *testing.T) {
	if dir := os.Getenv("CRASHPOINT_TEST_DIR"); dir != "" {
		Reached(Granted)
		In(dir)
		Reached(CheckpointWritten)
		if err := os.WriteFile(filepath.Join(dir, "passed"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		Reached(Granted)
		t.Fatal("the process goes on")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, FileName), []byte(string(Granted)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$") //nolint:gosec // it is this very program
	cmd.Env = append(os.Environ(), "CRASHPOINT_TEST_DIR="+dir)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitCode {
		t.Fatalf("it ended with %v\n%s", err, out)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != "passed" {
		t.Errorf("the folder holds %v, %v; want that another point was passed, and nothing to crash at again", entries, err)
	}
}
