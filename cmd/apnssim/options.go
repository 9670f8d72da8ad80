package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"regexp"
	"time"

	"github.com/spf13/cobra"

	"badgerelay/apns/apnstest"
	"badgerelay/cmd/internal/command"
	"badgerelay/cmd/internal/configfile"
)

// appleID is what Apple's ids of teams and keys are, and what badgerelay's configuration
// takes (Apple, "Establishing a token-based connection to APNs", read 2026-11).
var appleID = regexp.MustCompile(`^[A-Z0-9]{10}$`)

// maxDevices is what the page is tested with.
const maxDevices = 5000

// options are the command line. The zero value of each is its default unless
// register says otherwise.
type options struct {
	listen, management string
	topics             []string
	environment        string

	team, keyID, publicKey string
	generateKey, caFile    string

	devices int
	device  []string

	faults      string
	seed        uint64
	fast        bool
	strict      bool
	bySource    bool
	rtt         time.Duration
	streamLimit uint32
	connects    int
	errorWait   time.Duration
	logLevel    string
}

func (o *options) register(c *cobra.Command) {
	f := c.Flags()
	f.SortFlags = false
	f.StringVar(&o.listen, "listen", "127.0.0.1:2197", "loopback `address` to speak APNs on; port 0 picks one")
	f.StringVar(&o.management, "management", "127.0.0.1:2198", "loopback `address` of the page and the management interface")
	f.StringSliceVar(&o.topics, "topic", []string{"com.example.mail"}, "`bundle id` that may be pushed to, repeated for several; devices are of the first")
	command.Choice(c, f, &o.environment, "environment", "", "which APNs to be: production or sandbox", "production", "sandbox")
	f.StringVar(&o.generateKey, "generate-key", "", "`directory` for a signing key (.p8) and the authority to trust; an existing key and authority are used again")
	f.StringVar(&o.team, "team", "SIMTEAM001", "team `id` of provider tokens")
	f.StringVar(&o.keyID, "key-id", "SIMKEY0001", "key `id` of provider tokens")
	f.StringVar(&o.publicKey, "public-key", "", "`file` that provider tokens are verified with: a public key in PEM, or a .p8")
	f.StringVar(&o.caFile, "ca-file", "", "`file` to write the authority to trust to (default: apnssim-ca.pem in the directory of --generate-key)")
	command.Count(f, &o.devices, "devices", 0, maxDevices, 0, "how many devices to begin with, each with a mailbox of its own; at most 5000")
	f.StringArrayVar(&o.device, "device", nil, "a device: `mailbox=...,name=...,model=iPhone|iPad,token=<hex>,topic=...`, all but the mailbox optional; repeated for several")
	command.Choice(c, f, &o.faults, "faults", "", "low: misbehave now and then, as the real service does; or off", "low", "off")
	command.Count(f, &o.seed, "seed", 0, math.MaxUint64, 0, "`number` that repeats the faults of an earlier run; 0 draws one")
	f.BoolVar(&o.strict, "strict", false, "refuse the unusual forms that APNs takes: no ALPN, signatures in DER, padded base64, iat that is no whole number, apns-id in upper case")
	f.BoolVar(&o.fast, "fast", false, "leave out history and the costlier checks, for benchmarks; faults are off then")
	f.BoolVar(&o.bySource, "by-source", false, "take each source address for a client of its own, which can't know what another sent or was told")
	command.Duration(f, &o.rtt, "rtt", 0, 0, "pretend to be so far away: `time` that everything the simulator says comes later, such as 50ms")
	command.Count(f, &o.streamLimit, "stream-limit", 0, math.MaxInt32, 0, "concurrent `streams` granted to a connection (default 1000)")
	command.Count(f, &o.connects, "connects-per-minute", 0, 1_000_000, 120, "connections that an address may open in a minute; 0: any number")
	command.Duration(f, &o.errorWait, "server-error-wait", 0, 0, "`time` for which a payload refused with a 5xx may not come again (default 15m)")
	command.Choice(c, f, &o.logLevel, "log-level", "", "what to log: info, warn, error or debug, which names each refusal's rule", "info", "warn", "error", "debug")
	command.Environment(f, "listen", "management", "generate-key", "public-key", "ca-file", "team", "key-id", "log-level")
	command.Directories(c, "generate-key")
	command.Files(c, "public-key", "pem", "p8")
	command.Files(c, "ca-file", "pem")
}

// validate returns every problem at once.
func (o *options) validate() error {
	var errs []error
	for flag, address := range map[string]string{"--listen": o.listen, "--management": o.management} {
		if bad := configfile.BadAddress(address); bad != "" {
			errs = append(errs, fmt.Errorf("%s: %s", flag, bad))
		} else if !configfile.Loopback(address) { // the simulator and its management interface know no passwords
			errs = append(errs, fmt.Errorf("%s: %q is not a loopback address; use 127.0.0.1, [::1] or localhost", flag, address))
		}
	}
	if len(o.topics) == 0 || o.topics[0] == "" {
		errs = append(errs, errors.New("--topic: at least one is needed"))
	}
	if (o.publicKey == "") == (o.generateKey == "") {
		errs = append(errs, errors.New("give one of --generate-key and --public-key: whose provider tokens are to be accepted"))
	}
	if info, err := os.Stat(o.generateKey); o.generateKey != "" && err == nil && !info.IsDir() {
		errs = append(errs, fmt.Errorf("--generate-key: %s is not a directory", o.generateKey))
	}
	if info, err := os.Stat(o.caFile); o.caFile != "" && err == nil && info.IsDir() {
		errs = append(errs, fmt.Errorf("--ca-file: %s is a directory", o.caFile))
	}
	for _, id := range []struct{ flag, given string }{{"--team", o.team}, {"--key-id", o.keyID}} {
		if !appleID.MatchString(id.given) {
			errs = append(errs, fmt.Errorf("%s: %q is not ten capital letters and digits", id.flag, id.given))
		}
	}
	if o.rtt > time.Minute {
		errs = append(errs, fmt.Errorf("--rtt: %v is not within 0..1m", o.rtt))
	}
	_, err := o.allDevices()
	return errors.Join(append(errs, err)...)
}

func (o *options) env() apnstest.Environment {
	if o.environment == "sandbox" {
		return apnstest.Sandbox
	}
	return apnstest.Production
}

func (o *options) plan() apnstest.Faults {
	if o.faults == "low" && !o.fast {
		return apnstest.LowRate()
	}
	return apnstest.Faults{}
}
