package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"badgerelay/cmd/badgerelay/internal/config"
	"badgerelay/cmd/internal/command"
	"badgerelay/cmd/internal/configfile"
	"badgerelay/relay/registry"
)

func (p process) configCommand() *cobra.Command {
	c := &cobra.Command{Use: "config", Short: "check a configuration, or print an example of one"}
	example := p.ConfigExample(config.Example)
	example.Example = "  badgerelay config example > badgerelay.yaml"
	c.AddCommand(p.configCheck(), example)
	return c
}

func (p process) configCheck() *cobra.Command {
	var file string
	var connect bool
	c := &cobra.Command{
		Use: "check [file]", Short: "print everything that is wrong with a configuration",
		Long: `Reads the file and the certificates and keys that it names, and prints every
problem with its line. Nothing is started. Exit code 0: it would be accepted;
2: it would not. With --connect it also opens the registry, without changing
it; exit code 1 if that can't be reached. For the rest see badgerelay probe.`,
		Example: `  badgerelay config check badgerelay.yaml
  badgerelay config check                           # ` + config.DefaultPath + `, or the defaults`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := command.ConfigArgument(c, args, &file); err != nil {
				return err
			}
			valid, err := p.check(file)
			if err != nil || !connect {
				return err
			}
			return p.checkRegistry(c.Context(), valid)
		},
	}
	c.Flags().BoolVar(&connect, "connect", false, "open the registry, too")
	configFlag(c, &file)
	return p.OutputFlag(c)
}

// check prints what is wrong with a configuration, or returns it.
func (p process) check(file string) (*config.Config, error) {
	found := configfile.Named(file, config.DefaultPath)
	switch {
	case file != "":
	case found == "": // "valid" alone would mislead where the file is elsewhere
		p.Say("There is no %s: the defaults are checked.", config.DefaultPath)
	default:
		p.Say("%s is checked.", found)
	}
	c, warnings, err := config.Load(file)
	var notes []string
	if err == nil {
		notes, err = c.CheckDirectories()
	}
	return c, p.ConfigCheck(found, warnings, err, notes...)
}

// checkRegistry opens the registry of a valid configuration.
func (p process) checkRegistry(ctx context.Context, c *config.Config) error {
	var found string
	var err error
	if c.Registry.URL != "" {
		found, err = registry.PostgresConfig{URL: c.Registry.URL, PasswordFile: c.Registry.PasswordFile}.Check(ctx)
		err = wrap("registry.url", err)
	} else {
		found = "no file yet"
		if _, missing := os.Stat(filepath.Dir(c.RegistryPath())); !errors.Is(missing, fs.ErrNotExist) { // serve makes it
			found, err = registry.SQLiteConfig{Path: c.RegistryPath()}.Check(ctx)
		}
		err = wrap("registry.path "+c.RegistryPath(), err)
	}
	if err == nil {
		p.Say("The registry: %s.", found)
	}
	return misconfigured(err)
}

// misconfigured makes what the registry says of what was configured a mistake of the
// configuration: another database would have to be named, so that to try again is no use.
func misconfigured(err error) error {
	if _, invalid := errors.AsType[*registry.InvalidError](err); invalid || errors.Is(err, registry.ErrNewerSchema) {
		return command.Invalid(err)
	}
	return err
}

// wrap says of what an error is, if it is one.
func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}
