package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"badgerelay/apns"
	"badgerelay/apns/apnstest"
)

// device is one to register at the start.
type device struct {
	token apns.DeviceToken
	topic string
	meta  apnstest.Meta
}

// allDevices returns those of --device, then those of --devices. The error
// names every line that can't be read.
func (o *options) allDevices() ([]device, error) {
	var devices []device
	var errs []error
	taken := map[apns.DeviceToken]bool{}
	for i, line := range o.device {
		d, err := parseDevice(line, i+1, o.topics)
		if err == nil && taken[d.token] {
			err = errors.New("another device has this token")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("--device %q: %w", line, err))
			continue
		}
		taken[d.token] = true
		devices = append(devices, d)
	}
	for i := 1; i <= o.devices; i++ {
		devices = append(devices, numbered(i, o.topics))
	}
	return devices, errors.Join(errs...)
}

// numbered is the i-th device of --devices, the same each time: every third
// is an iPad.
func numbered(i int, topics []string) device {
	model := "iPhone"
	if i%3 == 0 {
		model = "iPad"
	}
	meta := apnstest.Meta{Name: fmt.Sprintf("%s %d", model, i), Mailbox: fmt.Sprintf("box%04d@example.org", i), Model: model}
	return device{tokenOf("devices", meta.Mailbox), first(topics), meta}
}

// parseDevice reads one --device, the i-th.
func parseDevice(line string, i int, topics []string) (device, error) {
	d := device{topic: first(topics), meta: apnstest.Meta{Model: "iPhone"}}
	for part := range strings.SplitSeq(line, ",") {
		key, value, ok := strings.Cut(part, "=")
		if ok && value == "" {
			return d, fmt.Errorf("%s is empty", key)
		}
		if !ok {
			return d, fmt.Errorf("%q is not key=value", part)
		}
		switch key {
		case "mailbox":
			d.meta.Mailbox = value
		case "name":
			d.meta.Name = value
		case "model":
			if value != "iPhone" && value != "iPad" {
				return d, fmt.Errorf("model %q is neither iPhone nor iPad", value)
			}
			d.meta.Model = value
		case "topic":
			d.topic = value
		case "token":
			token, err := apns.ParseDeviceToken(value)
			if err != nil {
				return d, err
			}
			d.token = token
		default:
			return d, fmt.Errorf("there is no %q; there are mailbox, name, model, topic and token", key)
		}
	}
	if d.meta.Mailbox == "" {
		return d, errors.New("mailbox is missing")
	}
	if d.meta.Name == "" {
		d.meta.Name = d.meta.Model
	}
	if d.token.IsZero() {
		d.token = tokenOf("device", fmt.Sprint(i), d.meta.Mailbox)
	}
	return d, nil
}

// tokenOf makes the same token from the same words each time.
func tokenOf(words ...string) apns.DeviceToken {
	sum := sha256.Sum256([]byte("apnssim\x00" + strings.Join(words, "\x00")))
	token, err := apns.DeviceTokenFromBytes(sum[:])
	if err != nil {
		panic(err) // 32 bytes are a token
	}
	return token
}

func first(topics []string) string {
	if len(topics) == 0 {
		return ""
	}
	return topics[0]
}
