package command

import "time"

// What a stage of a probe, or the whole, came to.
const (
	Succeeded = "Succeeded"
	Warning   = "Warning" // it went well, but asks for attention
	Broken    = "Failed"
	Skipped   = "Skipped"
)

// ProbeHelp explains in a probe's help why its words are what they are.
const ProbeHelp = `The last three lines, ResultType, Error and Exception, are those of Exchange's
Invoke-MonitoringProbe, so that what reads these can read this.`

// Stage is one step of a probe.
type Stage struct {
	Name       string  `json:"name"`
	ResultType string  `json:"resultType"` // one of the words above
	Detail     string  `json:"detail"`     // what was found, or what to do
	Seconds    float64 `json:"seconds"`
}

// Probe is a probe's result. The zero value has no stage yet.
type Probe struct {
	ResultType string  `json:"resultType"` // Succeeded or Failed
	Error      string  `json:"error"`      // the first stage that failed, and its detail
	Exception  string  `json:"exception"`  // what came back there, in its own words
	Stages     []Stage `json:"stages"`
}

// AddStage enters a stage, and prints it for people; exception is what came back where it
// failed. One that was skipped for no reason of its own is left out of what people see.
func (t *Terminal) AddStage(p *Probe, s Stage, exception string) {
	if p.ResultType == "" {
		p.ResultType = Succeeded
	}
	if s.ResultType == Broken && p.ResultType != Broken {
		p.ResultType, p.Error, p.Exception = Broken, s.Name+": "+s.Detail, exception
	}
	p.Stages = append(p.Stages, s)
	if s.ResultType != Skipped || s.Detail != "" {
		took := time.Duration(s.Seconds * float64(time.Second)).Round(100 * time.Microsecond)
		t.Say("%-17s %-9s %9s  %s", s.Name, s.ResultType, took.String(), s.Detail)
	}
}

// Finish prints a probe's result, for people without its stages. Its error is
// ErrReported where a stage failed.
func (t *Terminal) Finish(p *Probe) error {
	err := t.Print(p, func() {
		t.Say("")
		t.List(Field{"ResultType", p.ResultType}, Field{"Error", p.Error}, Field{"Exception", p.Exception})
	})
	if err == nil && p.ResultType == Broken {
		return ErrReported
	}
	return err
}
