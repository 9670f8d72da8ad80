package console

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"badgerelay/apns"
	"badgerelay/apns/apnstest"
)

// Bounds of what is registered here. maxDevices is what the page is tested
// with; the texts are what a tile can show, and an address of mail at most.
const (
	maxRegister = 5000
	maxDevices  = 100_000
	maxName     = 100
	maxText     = 256
)

// device is what the page and the JSON interface know of a device.
type device struct {
	Token          string     `json:"token"`
	Name           string     `json:"name"`
	Mailbox        string     `json:"mailbox"`
	Model          string     `json:"model"`
	Topic          string     `json:"topic"`
	Environment    string     `json:"environment"`
	Badge          uint32     `json:"badge"`
	Pushes         uint64     `json:"pushes"`
	Registered     bool       `json:"registered"`
	Online         bool       `json:"online"`
	Waiting        bool       `json:"waiting"`
	RegisteredAt   time.Time  `json:"registeredAt"`
	UnregisteredAt *time.Time `json:"unregisteredAt,omitempty"`
	LastPush       *time.Time `json:"lastPush,omitempty"`
}

func show(d apnstest.Device) device {
	v := device{
		Token: d.Token.Hex(), Name: d.Meta.Name, Mailbox: d.Meta.Mailbox, Model: d.Meta.Model,
		Topic: d.Topic, Environment: d.Environment.String(), Badge: d.Badge, Pushes: d.Shown,
		Registered: d.UnregisteredAt.IsZero(), Online: d.Online, Waiting: d.Waiting, RegisteredAt: d.RegisteredAt,
		UnregisteredAt: some(d.UnregisteredAt), LastPush: some(d.PushedAt),
	}
	if v.Model == "" {
		v.Model = "iPhone"
	}
	if v.Name == "" {
		v.Name = v.Model + " " + v.Token[:6]
	}
	return v
}

// some is nil for the zero time, which JSON would print as the year 1.
func some(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// registration is a device as POST /api/devices takes it. Without a token a
// random one is made, as a phone's app gets one from iOS.
type registration struct {
	Token       string `json:"token"`
	Name        string `json:"name"`
	Mailbox     string `json:"mailbox"`
	Model       string `json:"model"`       // iPhone, the default, or iPad
	Topic       string `json:"topic"`       // the bundle id of the app
	Environment string `json:"environment"` // production, the default, or sandbox
}

func (reg registration) check() (apns.DeviceToken, apnstest.Environment, error) {
	var none apns.DeviceToken
	token, err := deviceToken(reg.Token)
	if err != nil {
		return none, 0, err
	}
	env := apnstest.Production
	switch reg.Environment {
	case "", "production":
	case "sandbox":
		env = apnstest.Sandbox
	default:
		return none, 0, problem{"environment", "enum", "has to be production or sandbox"}
	}
	if reg.Model != "" && reg.Model != "iPhone" && reg.Model != "iPad" {
		return none, 0, problem{"model", "enum", "has to be iPhone or iPad"}
	}
	if reg.Topic == "" {
		return none, 0, problem{"topic", "required", "is missing: the bundle id of the app"}
	}
	for _, f := range []struct {
		field, value string
		limit        int
	}{{"topic", reg.Topic, maxText}, {"name", reg.Name, maxName}, {"mailbox", reg.Mailbox, maxText}} {
		if len(f.value) > f.limit {
			return none, 0, problem{f.field, "max_bytes", fmt.Sprintf("has more than %d bytes", f.limit)}
		}
		if !utf8.ValidString(f.value) || strings.ContainsFunc(f.value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return none, 0, problem{f.field, "printable", "has to be text without control characters"}
		}
	}
	return token, env, nil
}

func deviceToken(hex string) (apns.DeviceToken, error) {
	if hex == "" {
		var raw [32]byte
		rand.Read(raw[:])
		return apns.DeviceTokenFromBytes(raw[:])
	}
	token, err := apns.ParseDeviceToken(hex)
	if err != nil {
		return token, problem{"token", "device_token", fmt.Sprintf("has to be %d to %d bytes in hexadecimal", apns.MinDeviceTokenSize, apns.MaxDeviceTokenSize)}
	}
	return token, nil
}

func (c *console) list(w http.ResponseWriter, r *http.Request) {
	mailbox, token := r.FormValue("mailbox"), strings.ToLower(r.FormValue("token"))
	all := c.sim.Devices()
	out := make([]device, 0, len(all))
	for _, d := range all {
		if v := show(d); (mailbox == "" || v.Mailbox == mailbox) && (token == "" || v.Token == token) {
			out = append(out, v)
		}
	}
	answer(w, http.StatusOK, map[string][]device{"devices": out})
}

// register takes all devices of a request or none.
func (c *console) register(w http.ResponseWriter, r *http.Request) {
	body, err := readBody(w, r)
	if err != nil {
		refuseErr(w, err)
		return
	}
	many := bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("["))
	regs := make([]registration, 1)
	if many {
		err = decode(body, &regs)
	} else {
		err = decode(body, &regs[0])
	}
	if err != nil {
		refuseErr(w, err)
		return
	}
	added, err := c.add(regs, many)
	if err != nil {
		refuseErr(w, err)
		return
	}
	if many {
		answer(w, http.StatusCreated, map[string][]device{"devices": added})
		return
	}
	answer(w, http.StatusCreated, added[0])
}

func (c *console) add(regs []registration, many bool) ([]device, error) {
	if len(regs) > maxRegister {
		return nil, problem{"", "max_devices", fmt.Sprintf("at most %d devices a request", maxRegister)}
	}
	if c.sim.DeviceCount()+len(regs) > maxDevices {
		return nil, problem{"", "max_devices", fmt.Sprintf("at most %d devices in all", maxDevices)}
	}
	tokens := make([]apns.DeviceToken, len(regs))
	envs := make([]apnstest.Environment, len(regs))
	for i, reg := range regs {
		var err error
		if tokens[i], envs[i], err = reg.check(); err != nil {
			if many {
				err = at(err, "", i)
			}
			return nil, err
		}
	}
	added := make([]device, len(regs))
	for i, reg := range regs {
		meta := apnstest.Meta{Name: reg.Name, Mailbox: reg.Mailbox, Model: reg.Model}
		added[i] = show(c.sim.RegisterDevice(tokens[i], reg.Topic, envs[i], meta))
	}
	return added, nil
}

func (c *console) unregister(w http.ResponseWriter, r *http.Request) {
	token, err := knownToken(r.PathValue("token"))
	if err != nil {
		refuseErr(w, err)
		return
	}
	when := time.Now()
	if s := r.FormValue("at"); s != "" {
		if when, err = time.Parse(time.RFC3339Nano, s); err != nil {
			refuseErr(w, problem{"at", "rfc3339", "has to be a time such as 2026-11-01T12:00:00Z"})
			return
		}
	}
	if !c.sim.Unregister(token, when) {
		refuseErr(w, problem{"token", "known", "there is no such device"})
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// knownToken parses a token that must not be missing.
func knownToken(hex string) (apns.DeviceToken, error) {
	if hex == "" {
		return apns.DeviceToken{}, problem{"token", "required", "is missing"}
	}
	return deviceToken(hex)
}
