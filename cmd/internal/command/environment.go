package command

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// fromVariable marks flags that an environment variable can stand for; after the
// variable was used, its value says so.
const fromVariable = "badgerelay_environment"

// Environment lets an environment variable stand for each of the flags: for
// --ca of badgeagent that is BADGEAGENT_CA. The flag wins.
func Environment(f *pflag.FlagSet, flags ...string) {
	for _, name := range flags {
		if err := f.SetAnnotation(name, fromVariable, []string{""}); err != nil {
			panic(err) // there is no such flag
		}
	}
}

// FromEnvironment reports whether a flag's value came from its environment
// variable.
func FromEnvironment(c *cobra.Command, flag string) bool {
	f := c.Flags().Lookup(flag)
	return f != nil && len(f.Annotations[fromVariable]) == 1 && f.Annotations[fromVariable][0] != ""
}

// Variable is the environment variable that stands for a flag.
func Variable(program, flag string) string {
	return strings.ToUpper(program + "_" + strings.ReplaceAll(flag, "-", "_"))
}

// describeEnvironment adds the variables to what --help says of c's own flags.
func describeEnvironment(c *cobra.Command, program string) {
	own := func(f *pflag.Flag) {
		if f.Annotations[fromVariable] != nil && !strings.Contains(f.Usage, "$"+Variable(program, f.Name)) {
			f.Usage += fmt.Sprintf(" [$%s]", Variable(program, f.Name))
		}
	}
	c.LocalFlags().VisitAll(own)
}

// fromEnvironment sets the flags that were not given and that a variable stands
// for. Empty variables count as none.
func fromEnvironment(c *cobra.Command, t *Terminal) (err error) {
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Annotations[fromVariable] == nil || f.Changed || err != nil {
			return
		}
		variable := Variable(c.Root().Name(), f.Name)
		value := t.getenv(variable)
		if value == "" {
			return
		}
		if wrong := f.Value.Set(value); wrong != nil {
			err = Usage("$%s is %q: %w", variable, value, wrong)
			return
		}
		f.Changed = true
		f.Annotations[fromVariable] = []string{variable}
	})
	return err
}
