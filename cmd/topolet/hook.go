package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/draplugin/devlinks"
	"github.com/topolet/topolet/draplugin/fpgaprogram"
	"github.com/topolet/topolet/topology"
)

// hookName is in the state folder, which has the same path on the host.
const hookName = "hook"

func newDevLinksCommand() *cobra.Command {
	return &cobra.Command{
		Use:    devlinks.Command + " PATH=TARGET…",
		Short:  "Make links in the /dev of a container that is being created; for container runtimes",
		Hidden: true,
		Args:   cobra.MinimumNArgs(1),
		RunE:   func(cmd *cobra.Command, args []string) error { return devlinks.Make(cmd.InOrStdin(), args) },
	}
}

func newProgramFPGACommand() *cobra.Command {
	return &cobra.Command{
		Use:    fpgaprogram.Command + " DEVICE AFU-ID STATE-FOLDER PROGRAM-FOLDER",
		Short:  "Have a port of an FPGA programmed for a container that is being created; for container runtimes",
		Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			job, err := fpgaprogram.ParseJob(args)
			if err != nil {
				return err
			}
			host, err := topology.OpenRoot("/")
			if err != nil {
				return err
			}
			defer host.Close() //nolint:errcheck // only read
			return fpgaprogram.Programmer{Files: host, Kernel: fpgaprogram.Linux{}}.Run(cmd.Context(), job)
		},
	}
}

// installHook puts this program where the container runtime finds it. The one that is
// there may be running.
func installHook(stateDir string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	name := filepath.Join(stateDir, hookName)
	if err := copyProgram(self, name); err != nil {
		return fmt.Errorf("install the hook of container runtimes: %w", &allocator.SaveError{Path: name, Err: err})
	}
	return nil
}

func copyProgram(from, to string) (err error) {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close() //nolint:errcheck // only read
	temp := to + "-new"
	defer os.Remove(temp)                                                       //nolint:errcheck // gone already after the rename
	target, err := os.OpenFile(temp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o700) //nolint:gosec // it is a program
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	if err := errors.Join(err, target.Close()); err != nil {
		return err
	}
	return os.Rename(temp, to)
}
