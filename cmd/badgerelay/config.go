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
			found, err := p.ConfigFile(c, args, file, config.DefaultPath)
			if err != nil {
				return err
			}
			return p.check(c.Context(), found, connect)
		},
	}
	c.Flags().BoolVar(&connect, "connect", false, "open the registry, too")
	configFlag(c, &file)
	return p.OutputFlag(c)
}

// check prints what is wrong with a configuration, empty: the default one, and with its registry if connect.
func (p process) check(ctx context.Context, file string, connect bool) error {
	if file == "" { // "valid" alone would mislead where the file is elsewhere
		p.Say("There is no %s: the defaults are checked.", config.DefaultPath)
	}
	c, warnings, err := config.Load(file)
	var notes []string
	if err == nil {
		notes, err = c.CheckDirectories()
	}
	var away error // the registry can't be reached
	if err == nil && connect {
		var registry string
		registry, err = checkRegistry(ctx, c)
		if _, wrong := errors.AsType[*configfile.Problem](err); err != nil && !wrong {
			registry, away, err = notUsed(err), err, nil
		}
		if registry != "" {
			notes = append(notes, "The registry: "+registry+".")
		}
	}
	return errors.Join(p.ConfigCheck(file, warnings, err, notes...), away)
}

// notUsed says what became of a registry that could not be looked at.
func notUsed(err error) string {
	if errors.Is(err, registry.ErrUnavailable) {
		return "not reached"
	}
	return "damaged, or not to be read"
}

// checkRegistry opens the registry of a valid configuration, and says what it found.
// Its error is a *configfile.Problem where another registry would have to be named.
func checkRegistry(ctx context.Context, c *config.Config) (found string, err error) {
	field := "registry.path"
	switch _, missing := os.Stat(filepath.Dir(c.RegistryPath())); {
	case c.Registry.URL != "":
		field = "registry.url"
		found, err = registry.PostgresConfig{URL: c.Registry.URL, PasswordFile: c.Registry.PasswordFile}.Check(ctx)
	case errors.Is(missing, fs.ErrNotExist): // serve makes it
		return "no file yet", nil
	default:
		found, err = registry.SQLiteConfig{Path: c.RegistryPath()}.Check(ctx)
		err = wrap(c.RegistryPath(), err)
	}
	if err != nil && isMisconfigured(err) {
		return "", &configfile.Problem{Field: field, Text: err.Error()}
	}
	return found, wrap(field, err)
}

// isMisconfigured is whether what the registry says is a mistake of the configuration:
// another database would have to be named, so that to try again is no use.
func isMisconfigured(err error) bool {
	_, invalid := errors.AsType[*registry.InvalidError](err)
	return invalid || errors.Is(err, registry.ErrNewerSchema)
}

// misconfigured makes a mistake of the configuration an error of that kind.
func misconfigured(err error) error {
	if err != nil && isMisconfigured(err) {
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
