package command

import (
	"fmt"

	"badgerelay/cmd/internal/configfile"
)

// checkResult is what config check prints.
type checkResult struct {
	File     string         `json:"file"` // empty: there is none, the defaults were checked
	Valid    bool           `json:"valid"`
	Problems []checkProblem `json:"problems"`
	Warnings []checkProblem `json:"warnings"`
	Notes    []string       `json:"notes"`
}

type checkProblem struct {
	Line  int    `json:"line"` // 0: no line is to blame
	Field string `json:"field"`
	Text  string `json:"text"`
}

func checkProblems(all []*configfile.Problem) []checkProblem {
	out := []checkProblem{}
	for _, p := range all {
		out = append(out, checkProblem{p.Line, p.Field, p.Text})
	}
	return out
}

// ConfigCheck prints what a check of a configuration found: warnings, the
// problems that err joins, and notes about a valid one. Its error is an
// InvalidError where there are problems.
func (t *Terminal) ConfigCheck(file string, warnings []*configfile.Problem, err error, notes ...string) error {
	problems := configfile.Problems(err)
	result := checkResult{file, err == nil, checkProblems(problems), checkProblems(warnings), append([]string{}, notes...)}
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
	switch len(problems) {
	case 0:
		return nil
	case 1:
		return Invalid(fmt.Errorf("1 problem in the configuration"))
	}
	return Invalid(fmt.Errorf("%d problems in the configuration", len(problems)))
}
