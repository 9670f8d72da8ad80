package apple

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"badgerelay/apns/apnstest"
	"badgerelay/cmd/internal/child"
	"badgerelay/cmd/internal/rig/names"
)

// Config says what to simulate.
type Config struct {
	Program string // apnssim
	Dir     string // of the key that signs provider tokens and of the authority; made if it is not there

	Fast    bool          // leave out history and the costlier checks
	RTT     time.Duration // how far away it is
	Devices int           // registered from the start, by number
	Sandbox bool          // start the other environment too, where no device is known

	Seed              uint64        // of what is drawn at random; 0: any
	Jitter            time.Duration // answers take up to this longer
	ServerErrorWait   time.Duration // how long a payload may not come again after a 5xx; 0: Apple's
	BySource          bool          // each source address is a client of its own
	ConnectsPerMinute int           // before it counts as churn; 0: the simulator's default
}

// args are those that both environments share.
func (c *Config) args() []string {
	return []string{
		"--generate-key", c.Dir, "--team", names.TeamID, "--key-id", names.KeyID, "--topic", names.Topic,
		"--listen", "127.0.0.1:0", "--management", "127.0.0.1:0", "--faults", "off", "--log-level", "error", "--output", "json",
	}
}

// Apple is a simulator that runs as a child. Its methods are safe for concurrent use.
type Apple struct {
	*child.Process
	Address string // where it speaks APNs
	Sandbox string // the same of the other environment
	KeyFile string // signs provider tokens
	CAFile  string // the authority to trust, PEM

	config  Config
	console Console
	sandbox *child.Process
}

// announcement is what apnssim says of itself.
type announcement struct {
	Page   Console `json:"page"`
	APNs   string  `json:"apns"`
	CAFile string  `json:"caFile"`
	Apps   []struct {
		KeyFile string `json:"keyFile"`
	} `json:"apps"`
}

// Start starts a simulator, with every device registered.
func Start(ctx context.Context, g *child.Group, c Config) (*Apple, error) {
	args := append(c.args(), "--fast="+strconv.FormatBool(c.Fast), "--by-source="+strconv.FormatBool(c.BySource), "--rtt", c.RTT.String(),
		"--seed", fmt.Sprint(c.Seed), "--server-error-wait", c.ServerErrorWait.String())
	if c.ConnectsPerMinute > 0 {
		args = append(args, "--connects-per-minute", fmt.Sprint(c.ConnectsPerMinute))
	}
	process, said, err := launch(g, c.Program, args)
	if err != nil {
		return nil, err
	}
	a := &Apple{Process: process, Address: said.APNs, KeyFile: said.Apps[0].KeyFile, CAFile: said.CAFile, config: c, console: said.Page}
	if c.Sandbox {
		if a.sandbox, said, err = launch(g, c.Program, append(c.args(), "--environment", "sandbox", "--connects-per-minute", "0")); err != nil {
			return nil, err
		}
		a.Sandbox = said.APNs
	}
	if err := a.register(ctx); err != nil {
		return nil, err
	}
	return a, a.setFaults(ctx, c.Jitter, nil)
}

// launch starts a simulator and waits until it has said where it is.
func launch(g *child.Group, program string, args []string) (*child.Process, announcement, error) {
	var said announcement
	out, in, err := os.Pipe()
	if err != nil {
		return nil, said, fmt.Errorf("open a pipe from apnssim: %w", err)
	}
	defer out.Close()
	p, err := g.Start(child.Command{Name: "apnssim", Path: program, Args: args, Out: in})
	_ = in.Close() // the child has its own
	if err != nil {
		return nil, said, err
	}
	if err := json.NewDecoder(out).Decode(&said); err != nil || len(said.Apps) == 0 {
		p.Kill()
		return nil, said, p.Failure()
	}
	return p, said, nil
}

// End ends the simulator. It keeps nothing.
func (a *Apple) End() {
	a.Kill()
	if a.sandbox != nil {
		a.sandbox.Kill()
	}
}

// State is what the simulator has done so far.
type State struct {
	Stats        apnstest.Stats
	ClientFaults map[string]int
	FaultDevices map[string]int // the number of the device that each concerned last, where it concerns one
	Usage        child.Usage
}

// Faults returns how often the simulator's clients did what Apple would hold
// against them.
func (s *State) Faults() (n int) {
	for _, count := range s.ClientFaults {
		n += count
	}
	return n
}

// State returns what the simulator has done so far.
func (a *Apple) State(ctx context.Context) (s State, err error) {
	var answer struct {
		apnstest.Stats
		ClientFaults       map[string]int    `json:"clientFaults"`
		ClientFaultDevices map[string]string `json:"clientFaultDevices"`
	}
	if err := a.console.Ask(ctx, http.MethodGet, "stats", nil, &answer); err != nil {
		return s, err
	}
	s = State{Stats: answer.Stats, ClientFaults: answer.ClientFaults, FaultDevices: map[string]int{}}
	for fault, token := range answer.ClientFaultDevices {
		for i := range a.config.Devices {
			if names.Device(i).Hex() == token {
				s.FaultDevices[fault] = i
			}
		}
	}
	s.Usage, err = a.Usage()
	return s, err
}

// register makes every device known.
func (a *Apple) register(ctx context.Context) error {
	return a.lists(func(tokens []byte) error {
		_, err := a.console.call(ctx, http.MethodPost, "tokens?topic="+url.QueryEscape(names.Topic), "text/plain", tokens)
		return err
	})
}

// Badges returns what the devices show, by number.
func (a *Apple) Badges(ctx context.Context) ([]uint32, error) {
	all := make([]uint32, 0, a.config.Devices)
	err := a.lists(func(tokens []byte) error {
		shown, err := a.console.call(ctx, http.MethodPost, "badges", "text/plain", tokens)
		if err != nil {
			return err
		}
		for line := range bytes.Lines(shown) {
			n, err := strconv.ParseUint(string(bytes.TrimSpace(line)), 10, 32)
			if err != nil {
				return fmt.Errorf("read badges: %w", err)
			}
			all = append(all, uint32(n))
		}
		return nil
	})
	if err == nil && len(all) != a.config.Devices {
		err = fmt.Errorf("apnssim tells %d badges of %d devices", len(all), a.config.Devices)
	}
	return all, err
}

// perList is how many tokens apnssim takes at once, and some fewer.
const perList = 25_000

// lists calls f with the tokens of all devices, one a line, list by list.
func (a *Apple) lists(f func(tokens []byte) error) error {
	for first := 0; first < a.config.Devices; first += perList {
		var tokens []byte
		for i := first; i < min(first+perList, a.config.Devices); i++ {
			tokens = append(append(tokens, names.Device(i).Hex()...), '\n')
		}
		if err := f(tokens); err != nil {
			return err
		}
	}
	return nil
}
