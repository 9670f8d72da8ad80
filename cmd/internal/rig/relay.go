package rig

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"syscall"
	"time"

	"badgerelay/cmd/internal/child"
	"badgerelay/cmd/internal/rig/names"
)

// readyTimeout bounds the wait for a relay to be ready.
const readyTimeout = 2 * time.Minute

// Relay is a relay that runs as a child.
type Relay struct {
	*child.Process
	ToReady time.Duration // from its start until it would accept work
	place   *place
}

// StartRelay starts the i-th relay on the rig's registry and waits until it is
// ready. A simulated Apple has to run.
func (r *Rig) StartRelay(ctx context.Context, i int) (*Relay, error) {
	began := time.Now()
	relay, err := r.LaunchRelay(i)
	if err != nil {
		return nil, err
	}
	deadline, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if err := relay.AwaitOK(deadline, "http://"+relay.place.ops+"/readyz", 2*time.Millisecond); err != nil {
		relay.Kill()
		return nil, err
	}
	relay.ToReady = time.Since(began)
	return relay, nil
}

// LaunchRelay starts the i-th relay and does not wait.
func (r *Rig) LaunchRelay(i int) (*Relay, error) {
	at := &r.places[i]
	mistake := Mistake(r.mistake.Load())
	if err := r.writeConfig(at, mistake); err != nil {
		return nil, err
	}
	if at.wires != nil {
		at.wires.sandbox.Store(mistake == WrongEnvironment)
	}
	var environment []string
	if r.clock != nil {
		environment = r.clock.Environment()
	}
	p, err := r.Group.Start(child.Command{
		Name: "badgerelay", Path: r.Relay, Args: []string{"serve", "--config", r.path(at.config)}, Env: environment, Log: r.log,
	})
	if err != nil {
		return nil, err
	}
	return &Relay{Process: p, place: at}, nil
}

// Mistake is what is wrong with the app in the configurations.
type Mistake int32

// The mistakes. The zero value is none.
const (
	NoMistake        Mistake = iota
	WrongTopic               // of another app of the team's
	WrongEnvironment         // the sandbox, where no device is known
)

// Mistake has the configurations that are written from now on hold the mistake;
// relays take it when they start. The rig must be wired.
func (r *Rig) Mistake(m Mistake) { r.mistake.Store(int32(m)) }

// Reload writes a configuration that differs and asks the relay to read it.
func (r *Rig) Reload(relay *Relay) error {
	r.reloads.Add(1)
	if err := r.writeConfig(relay.place, Mistake(r.mistake.Load())); err != nil {
		return err
	}
	return relay.Signal(syscall.SIGHUP)
}

// writeConfig writes the relay's configuration, as an operator would. JSON is
// YAML too.
func (r *Rig) writeConfig(at *place, mistake Mistake) error {
	a := r.apple.Load()
	app := map[string]any{
		"name": names.App, "topic": names.Topic, "address": r.addressOfApple(at), "ca_file": a.CAFile,
		"token": map[string]any{"key_file": a.KeyFile, "key_id": names.KeyID, "team_id": names.TeamID},
	}
	switch mistake {
	case WrongTopic:
		app["topic"] = names.Topic + ".other"
	case WrongEnvironment:
		app["environment"] = "sandbox"
	}
	if r.Engine != "" {
		app["engine"] = r.Engine
	}
	if r.ConnectsPerSecond > 0 {
		app["connects_per_second"] = r.ConnectsPerSecond
	}
	if r.AnswerTimeout > 0 {
		app["answer_timeout"] = r.AnswerTimeout.String()
	}
	heart := map[string]any{"coalescing_window": r.Window.String()}
	if r.ServerErrorWait > 0 {
		heart["retry_after_server_error"] = r.ServerErrorWait.String()
	}
	if r.MaxMailboxes > 0 {
		heart["max_mailboxes"] = r.MaxMailboxes
	}
	registry := map[string]any{"path": r.registryPath()}
	if r.database != nil {
		registry = map[string]any{"url": r.urlOfDatabase(at)}
	}
	data, err := json.MarshalIndent(map[string]any{
		"listen": map[string]any{
			"address": at.agents,
			"tls":     map[string]any{"certificate_file": r.path(fileRelayCertificate), "key_file": r.path(fileRelayKey)},
		},
		"admin":        map[string]any{"socket": r.path(at.socket)},
		"ops":          map[string]any{"address": at.ops},
		"registry":     registry,
		"auth":         map[string]any{"principal": names.Principal, "authorities": []string{names.Authority}},
		"relay":        heart,
		"apps":         []any{app},
		"log":          map[string]any{"level": "info", "format": "text"},
		"limits":       map[string]any{"calls_per_second": 1000 + r.reloads.Load()},
		"drain_budget": "5s",
	}, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the relay's configuration: %w", err)
	}
	if err := os.WriteFile(r.path(at.config), data, 0o600); err != nil {
		return fmt.Errorf("write the relay's configuration: %w", err)
	}
	return nil
}

// get copies what the relay's ops listener answers.
func (r *Relay) get(ctx context.Context, path string, to io.Writer) error {
	return get(ctx, r.place.ops, path, to)
}

// get copies what the ops listener of this address answers.
func get(ctx context.Context, ops, path string, to io.Writer) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("ask %s for %s: %w", ops, path, err)
		}
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+ops+path, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(to, res.Body); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return errors.New(res.Status)
	}
	return nil
}

// CPUProfile writes what the relay spends its CPU on during d to path.
func (r *Relay) CPUProfile(ctx context.Context, d time.Duration, path string) error {
	return r.profile(ctx, fmt.Sprintf("/debug/pprof/profile?seconds=%d", max(1, int(d.Seconds()))), path)
}

// HeapProfile writes what the relay's memory holds, after a collection.
func (r *Relay) HeapProfile(ctx context.Context, path string) error {
	return r.profile(ctx, "/debug/pprof/heap?gc=1", path)
}

// Collect has the relay collect its garbage.
func (r *Relay) Collect(ctx context.Context) error {
	return r.get(ctx, "/debug/pprof/heap?gc=1", io.Discard)
}

func (r *Relay) profile(ctx context.Context, from, path string) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write profile: %w", err)
	}
	return errors.Join(r.get(ctx, from, f), f.Close())
}
