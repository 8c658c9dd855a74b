package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/topolet/topolet/draplugin/profile"
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/snapshot"
)

func newProfileCommand() *cobra.Command {
	var root, config string
	cmd := &cobra.Command{
		Use:   "profile",
		Short: "Show what the profiles of a configuration would change on this machine, without changing it",
		Long: `Show what the profiles of a configuration would change on this machine: for each
PCI function that matches one, the writes to the kernel's files in their order, or why
there are none.

Nothing is written. topolet run makes these writes, as soon as nobody uses the function.
Whether anybody does is not looked at here.`,
		Example: `  topolet profile --config config.yaml`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if config == "" {
				return errors.New("flag --config is empty: set it to the configuration file")
			}
			c, err := loadConfig(config)
			if err != nil {
				return err
			}
			profiles := profile.Of(c)
			if len(profiles) == 0 {
				fmt.Fprintf(cmd.OutOrStdout(), "%s has no profiles: nothing is changed\n", config)
				return nil
			}
			plans, err := plansFor(root, profiles)
			if err != nil {
				return fmt.Errorf("--root %s: %w", root, err)
			}
			profile.Fprint(cmd.OutOrStdout(), plans, profiles)
			return nil
		},
	}
	cmd.Flags().StringVar(&root, "root", "/", "directory that is read in place of /")
	cmd.Flags().StringVar(&config, "config", "", "configuration file of topolet (required)")
	return cmd
}

// plansFor compares the machine below a directory with profiles.
func plansFor(path string, profiles []profile.Profile) ([]profile.Plan, error) {
	root, err := snapshot.Open(path)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	m, err := topology.Discover(root)
	if err != nil {
		return nil, err
	}
	return profile.Plans(device.NewHost(root, m), profiles, nil), nil
}
