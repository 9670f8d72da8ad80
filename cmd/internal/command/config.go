package command

import (
	"fmt"

	"github.com/spf13/cobra"

	"badgerelay/cmd/internal/configfile"
)

// ConfigFlag adds --config, which names what; where it is not given, fallback is read
// if it exists.
func ConfigFlag(c *cobra.Command, value *string, what, fallback string) {
	c.Flags().StringVar(value, "config", "", what+" `file` (default: "+fallback+", if it exists)")
	Environment(c.Flags(), "config")
	Files(c, "config", "yaml", "yml")
}

// ConfigFile returns the file that a command with ConfigFlag looks at: its argument, if
// there is one, the value of --config, or fallback where it exists, which it tells then.
// Empty: there is none. An argument and --config are one too many.
func (t *Terminal) ConfigFile(c *cobra.Command, args []string, value, fallback string) (file string, err error) {
	switch {
	case len(args) == 0:
	case value != "" && !FromEnvironment(c, "config"):
		return "", Usage("name the configuration once: %s, or --config %s", args[0], value)
	default:
		value = args[0]
	}
	file = configfile.Named(value, fallback)
	if value == "" && file != "" {
		t.Say("%s is checked.", file)
	}
	return file, nil
}

// ConfigExample is the command that prints example, a configuration.
func (t *Terminal) ConfigExample(example string) *cobra.Command {
	return &cobra.Command{
		Use: "example", Short: "print a configuration with every setting explained",
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprint(t.Out, example)
			return err
		},
	}
}

// checkResult is what config check prints.
type checkResult struct {
	File     string                `json:"file"` // empty: there is none, the defaults were checked
	Valid    bool                  `json:"valid"`
	Problems []*configfile.Problem `json:"problems"`
	Warnings []*configfile.Problem `json:"warnings"`
	Notes    []string              `json:"notes"`
}

// ConfigCheck prints what a check of a configuration found: warnings, the
// problems that err joins, and notes about a valid one. Its error is an
// InvalidError where there are problems.
func (t *Terminal) ConfigCheck(file string, warnings []*configfile.Problem, err error, notes ...string) error {
	problems := append([]*configfile.Problem{}, configfile.Problems(err)...) // none of the lists is ever null
	result := checkResult{file, err == nil, problems, append([]*configfile.Problem{}, warnings...), append([]string{}, notes...)}
	if err := t.Print(result, func() {
		for _, w := range warnings {
			t.Say("warning: %v", w)
		}
		for _, p := range problems {
			t.Say("%v", p)
		}
		if err == nil {
			t.Say("The configuration is valid.")
		}
		for _, n := range notes {
			t.Say("%s", n)
		}
	}); err != nil {
		return err
	}
	if len(problems) == 0 {
		return nil
	}
	return Invalidf("%s in the configuration", Counted(len(problems), "problem", "problems"))
}
