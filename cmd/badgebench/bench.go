package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"badgerelay/cmd/badgebench/internal/report"
	"badgerelay/cmd/internal/command"
)

// bench is what all commands share.
type bench struct {
	*command.Terminal

	repeat         int
	relay, apnssim string // the programs; empty: those beside badgebench
}

func (b *bench) register(c *cobra.Command) {
	b.OutputFlag(c)
	f := c.PersistentFlags()
	command.Count(f, &b.repeat, "repeat", 1, 1000, 1, "how many runs to make; figures are their medians")
	f.StringVar(&b.relay, "badgerelay", "", "the badgerelay `program` (default: the one beside badgebench)")
	f.StringVar(&b.apnssim, "apnssim", "", "the apnssim `program`, which simulates Apple (default: as with --badgerelay)")
	command.Environment(f, "badgerelay", "apnssim")
	command.Files(c, "badgerelay")
	command.Files(c, "apnssim")
}

// say tells how far the measurement is.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.Err, format+"\n", args...)
}

// errProblems says that a report named its problems itself.
var errProblems = errors.New("no figures: the report names the problems")

// measure makes a report of c and prints it. run is called for each
// repetition, and adds its figures or problems to the report; what it started ends with
// its context. An error of run means that nothing was measured; a report with problems is
// printed and then an error.
func (b *bench) measure(c *cobra.Command, run func(ctx context.Context, r *report.Report) error) error {
	r := report.New(c.CommandPath(), settings(c), b.repeat)
	for i := 1; i <= b.repeat && len(r.Problems) == 0; i++ {
		if b.repeat > 1 {
			b.say("run %d of %d", i, b.repeat)
		}
		ctx, end := context.WithCancel(c.Context())
		err := run(ctx, r)
		end()
		if err != nil {
			return err
		}
	}
	r.Finish()
	err := b.Print(r, func() {
		r.Table(b.Out)
		if len(r.Problems) == 0 {
			fmt.Fprintln(b.Out)
			r.Bench(b.Out) // benchstat leaves out what is above
		}
	})
	if err == nil && len(r.Problems) > 0 {
		return errProblems
	}
	return err
}

// program returns the path of a program that badgebench runs: what its flag says, or
// the one beside badgebench, where "make build" puts it.
func (b *bench) program(name, flag string) (string, error) {
	if flag != "" {
		found, err := exec.LookPath(flag)
		if err != nil {
			return "", command.Usage("--%s: %w", name, err)
		}
		return filepath.Abs(found)
	}
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	found, err := exec.LookPath(filepath.Join(filepath.Dir(self), name))
	if err != nil {
		return "", command.Usage("there is no %s beside %s: run 'make build', which puts both into bin, or name one with --%s", name, self, name)
	}
	return found, nil
}

// writableProfiles refuses profiles that could not be written once a run is over.
func writableProfiles(c *cobra.Command) (err error) {
	c.Flags().Visit(func(f *pflag.Flag) {
		if !strings.HasSuffix(f.Name, "profile") {
			return
		}
		file := f.Value.String()
		if info, wrong := os.Stat(file); wrong == nil && info.IsDir() {
			err = command.Usage("--%s %s is a directory; name a file in it", f.Name, file)
		}
		if info, wrong := os.Stat(filepath.Dir(file)); wrong != nil || !info.IsDir() {
			err = command.Usage("--%s: there is no directory %s", f.Name, filepath.Dir(file))
		}
	})
	return err
}

// settings are the command's own flags with their values.
func settings(c *cobra.Command) map[string]string {
	all := map[string]string{}
	c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
		if f.Name != "help" && !strings.HasSuffix(f.Name, "profile") {
			all[f.Name] = f.Value.String()
			if f.Value.Type() == "duration" {
				all[f.Name] = cmp.Or(all[f.Name], "0s")
			}
		}
	})
	return all
}
