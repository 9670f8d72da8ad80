package rig

import (
	"cmp"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"badgerelay/auth/authtest"
	"badgerelay/cmd/internal/child"
	"badgerelay/cmd/internal/rig/apple"
	"badgerelay/cmd/internal/rig/clock"
	"badgerelay/cmd/internal/rig/names"
)

// Config says what to build.
type Config struct {
	Relay, Simulator  string // the programs badgerelay and apnssim
	Mailboxes         int
	DevicesPerMailbox int
	SharedShare       float64       // of devices that are on a second mailbox, of their own organization and of another in turn; 0: none
	Relays            int           // that share the registry; 0: one
	Registry          string        // File or Postgres
	Sizes             []int         // how many of the mailboxes each organization has; nil: one has all
	Window            time.Duration // of coalescing; 0: off
	Engine            string        // of apns; empty: the relay's default
	ConnectsPerSecond float64       // to Apple; 0: the relay's default
	MaxMailboxes      int           // in a relay's memory; 0: the relay's default

	AnswerTimeout   time.Duration // of Apple; 0: the relay's default
	ServerErrorWait time.Duration // after a 5xx of Apple; 0: the relay's default
	SmallDisk       bool          // the registry gets a file system of its own, so that it can be full; needs root
	OwnClock        bool          // the relay is built with package clock, not Relay, and gets a clock
	Wired           bool          // everything that a relay is connected to is over a wire that can be cut
	Standby         bool          // a private database has a synchronous standby
	LogFile         string        // keeps the relay's log; empty: it goes with the rig
}

// Rig is everything but the load. Of its methods, those that work on the running
// relay (keys, registry, disk) may be called while others start or reload it;
// none is called twice at once for one organization.
type Rig struct {
	Config
	Group         *child.Group // every process
	Organizations []*Organization
	Shared        map[int]int // by device: the other mailbox that it is on

	dir      string
	places   []place                     // one for each relay
	database *database                   // nil: the registry is a file
	apple    atomic.Pointer[apple.Apple] // the one that runs; wires read it while another is started
	log      *os.File
	mounted  bool
	clock    *clock.Clock // the relay's; nil: the system's
	reloads  atomic.Int32 // configurations that were written for a reload
	mistake  atomic.Int32 // a Mistake
}

// New makes the directory with the keys. Close ends all.
func New(ctx context.Context, c Config) (*Rig, error) {
	dir, err := os.MkdirTemp("", "badge-rig-")
	if err != nil {
		return nil, fmt.Errorf("make a directory: %w", err)
	}
	r := &Rig{Config: c, Group: &child.Group{}, Shared: map[int]int{}, dir: dir}
	if err := r.prepare(ctx); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (r *Rig) prepare(ctx context.Context) (err error) {
	relay := authtest.NewServer("relay", time.Now().AddDate(1, 0, 0), names.Authority, "127.0.0.1")
	if err := relay.Write(r.path(fileRelayCertificate), r.path(fileRelayKey)); err != nil {
		return fmt.Errorf("write the relay's certificate: %w", err)
	}
	if r.log, err = os.Create(cmp.Or(r.LogFile, r.path(fileLog))); err != nil {
		return fmt.Errorf("make the relay's log: %w", err)
	}
	if err := r.makeOrganizations(); err != nil {
		return err
	}
	if r.OwnClock {
		if r.Relay, err = clock.Build(ctx, r.dir); err != nil {
			return err
		}
		if r.clock, err = clock.Create(r.path(fileClock)); err != nil {
			return err
		}
	}
	if err := os.Mkdir(r.path(dirRegistry), 0o700); err != nil {
		return fmt.Errorf("make the registry's directory: %w", err)
	}
	if r.SmallDisk {
		if err := mountSmall(r.path(fileDisk), r.path(dirRegistry)); err != nil {
			return err
		}
		r.mounted = true
	}
	if r.Registry == Postgres {
		if r.database, err = newDatabase(r.Standby); err != nil {
			return err
		}
	}
	if r.places, err = findPlaces(max(1, r.Relays)); err != nil || !r.Wired {
		return err
	}
	for i := range r.places {
		if err := r.makeWires(i); err != nil {
			return err
		}
	}
	return nil
}

// Close ends every process and removes every file. A step that fails keeps none
// after it from being taken.
func (r *Rig) Close() error {
	r.Group.Close()
	for _, p := range r.places {
		if p.wires != nil {
			p.wires.close()
		}
	}
	if r.log != nil {
		_ = r.log.Close() // nobody writes any more
	}
	if r.clock != nil {
		_ = r.clock.Close() // nobody steps it any more
	}
	var errs []error
	if r.database != nil {
		errs = append(errs, r.database.close())
	}
	if r.mounted {
		errs = append(errs, unmount(r.path(dirRegistry)))
	}
	if err := os.RemoveAll(r.dir); err != nil {
		errs = append(errs, fmt.Errorf("remove what was written: %w", err))
	}
	return errors.Join(errs...)
}

// Devices returns how many devices there are.
func (r *Rig) Devices() int { return r.Mailboxes * r.DevicesPerMailbox }

// path returns where a file of the rig's directory is.
func (r *Rig) path(name string) string { return filepath.Join(r.dir, name) }

// StartApple starts the simulated Apple with every device registered. A relay
// that is started afterwards pushes to it.
func (r *Rig) StartApple(ctx context.Context, c apple.Config) (*apple.Apple, error) {
	c.Devices = r.Devices()
	return r.startApple(ctx, c)
}

func (r *Rig) startApple(ctx context.Context, c apple.Config) (*apple.Apple, error) {
	c.Program, c.Dir, c.Sandbox = r.Simulator, r.path(dirApple), r.Wired
	a, err := apple.Start(ctx, r.Group, c)
	if err != nil {
		return nil, err
	}
	r.apple.Store(a)
	for _, p := range r.places {
		if p.wires == nil || p.wires.apple != "" {
			continue
		}
		if err := r.wireApple(p.wires); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// Imported says what the import of a part of the subscriptions took.
type Imported struct {
	Rows     int
	Took     time.Duration
	Relay    time.Duration // CPU time
	Database time.Duration // CPU time; 0: not known, or there is none
}

// importPart is how many devices one command imports, so that it shows what a
// device costs while the registry grows.
const importPart = 1_000_000

// Fill registers the organizations, their certificates and the devices of each
// mailbox, with the operator's commands at a relay that runs for that alone, and
// returns what the import of the subscriptions took, in parts of up to a million.
func (r *Rig) Fill(ctx context.Context) ([]Imported, error) {
	a, err := r.startApple(ctx, apple.Config{}) // nothing is pushed
	if err != nil {
		return nil, err
	}
	defer a.End()
	relay, err := r.StartRelay(ctx, 0)
	if err != nil {
		return nil, err
	}
	parts, err := r.register(ctx, relay)
	return parts, errors.Join(err, relay.Stop(ctx))
}

func (r *Rig) register(ctx context.Context, relay *Relay) (parts []Imported, err error) {
	for _, o := range r.Organizations {
		if err := r.operate(ctx, "organization", "add", o.Name); err != nil {
			return nil, err
		}
		if err := r.operate(ctx, "credential", "add", "--organization", o.Name, "--certificate", o.certificate); err != nil {
			return nil, err
		}
		devices := o.Mailboxes * r.DevicesPerMailbox
		for first := 0; first < devices; first += importPart {
			part, err := r.fill(ctx, relay, o, first, min(devices-first, importPart))
			if err != nil {
				return nil, err
			}
			parts = append(parts, part)
		}
	}
	return parts, r.share(ctx)
}

// share has some devices of each organization be on a second mailbox: by turns on
// another one of the organization, and on one of the organization before it.
func (r *Rig) share(ctx context.Context) error {
	if r.SharedShare <= 0 {
		return nil
	}
	every := max(1, int(1/r.SharedShare))
	lines := make([]strings.Builder, len(r.Organizations)) // of what each imports
	for _, o := range r.Organizations {
		for n, i := 0, 0; i < o.Mailboxes*r.DevicesPerMailbox; n, i = n+1, i+every {
			with, mailbox := o, (i/r.DevicesPerMailbox+1)%o.Mailboxes
			if n%2 == 1 && o.Number > 0 {
				with = r.Organizations[o.Number-1]
				mailbox = i % with.Mailboxes
			} else if o.Mailboxes == 1 {
				continue // it has no other
			}
			device := o.First*r.DevicesPerMailbox + i
			r.Shared[device] = with.First + mailbox
			fmt.Fprintf(&lines[with.Number], "%s,%s,%s\n", names.Mailbox(mailbox), names.App, names.Device(device).Hex())
		}
	}
	file := r.path("shared.csv")
	defer os.Remove(file) // the directory goes too
	for _, o := range r.Organizations {
		if lines[o.Number].Len() == 0 {
			continue
		}
		if err := os.WriteFile(file, []byte(lines[o.Number].String()), 0o600); err != nil {
			return fmt.Errorf("write shared devices: %w", err)
		}
		if err := r.operate(ctx, "subscription", "import", "--keep-others", "--organization", o.Name, file); err != nil {
			return err
		}
	}
	return nil
}

// fill imports n devices of an organization.
func (r *Rig) fill(ctx context.Context, relay *Relay, o *Organization, first, n int) (part Imported, err error) {
	devices, err := r.writeDevices(o, first, n)
	if err != nil {
		return part, err
	}
	defer os.Remove(devices) // the directory goes too
	before, err := relay.Usage()
	if err != nil {
		return part, err
	}
	database, began := r.DatabaseCPU(), time.Now()
	if err := r.operate(ctx, "subscription", "import", "--organization", o.Name, devices); err != nil {
		return part, err
	}
	part = Imported{Rows: n, Took: time.Since(began), Database: r.DatabaseCPU() - database}
	after, err := relay.Usage()
	part.Relay = after.CPU - before.CPU
	return part, err
}

// operate runs one of the operator's commands at the first relay.
func (r *Rig) operate(ctx context.Context, args ...string) error { return r.operateAt(ctx, 0, args...) }

// operateAt runs one of the operator's commands at the i-th relay.
func (r *Rig) operateAt(ctx context.Context, i int, args ...string) error {
	c := exec.CommandContext(ctx, r.Relay, args...)
	c.Env = append(os.Environ(), "BADGERELAY_ADMIN="+r.path(r.places[i].socket))
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("badgerelay %s: %w: %s", strings.Join(args[:2], " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// writeDevices writes a list of n devices that subscription import reads.
func (r *Rig) writeDevices(o *Organization, first, n int) (path string, err error) {
	f, err := os.Create(r.path("devices.csv"))
	if err != nil {
		return "", fmt.Errorf("write devices: %w", err)
	}
	w := csv.NewWriter(f)
	for i := first; i < first+n; i++ {
		device := names.Device(o.First*r.DevicesPerMailbox + i)
		_ = w.Write([]string{names.Mailbox(i / r.DevicesPerMailbox), names.App, device.Hex()}) // Flush knows
	}
	w.Flush()
	if err := errors.Join(w.Error(), f.Close()); err != nil {
		return "", fmt.Errorf("write devices: %w", err)
	}
	return f.Name(), nil
}

// CAFile is the authority of the relays' certificate, PEM.
func (r *Rig) CAFile() string { return r.path(fileRelayCertificate) }
