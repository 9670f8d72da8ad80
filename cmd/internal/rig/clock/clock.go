package clock

import (
	"encoding/binary"
	"fmt"
	"os"
	"time"
)

// Clock is the clock of the programs that were given its file.
type Clock struct{ f *os.File }

// Create makes a file with a clock that says what the system says.
func Create(path string) (*Clock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make a clock: %w", err)
	}
	c := &Clock{f}
	if err := c.Step(0); err != nil {
		_ = f.Close() // the first error is the one that matters
		return nil, err
	}
	return c, nil
}

// Environment is what a program needs in its environment.
func (c *Clock) Environment() []string { return []string{Variable + "=" + c.f.Name()} }

// Step sets the clock so far ahead of the system's, in whole seconds. It may be
// called while programs run: they see the old number or the new one, because
// eight bytes at the beginning of a page are written at once.
func (c *Clock) Step(ahead time.Duration) error {
	if _, err := c.f.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(int64(ahead/time.Second))), 0); err != nil {
		return fmt.Errorf("step the clock: %w", err)
	}
	return nil
}

// Close closes the file. Programs keep the clock as it is.
func (c *Clock) Close() error { return c.f.Close() }
