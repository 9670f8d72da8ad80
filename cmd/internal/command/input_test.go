package command

import (
	"bytes"
	"context"
	"io"
	"testing"
	"testing/synctest"

	"github.com/spf13/cobra"
)

// TestAnIdleInputDoesNotHoldUpTheEnd interrupts a command that waits for somebody to type.
func TestAnIdleInputDoesNotHoldUpTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, typed := io.Pipe()
		defer typed.Close() // ends the read that nobody waits for
		ctx, interrupt := context.WithCancel(t.Context())
		var read []byte
		var out bytes.Buffer
		terminal := &Terminal{In: in, Out: &out, Err: &out}
		root := &cobra.Command{Use: "prog", RunE: func(*cobra.Command, []string) (err error) {
			read, err = io.ReadAll(terminal.In)
			return err
		}}
		ended := make(chan int, 1)
		go func() { ended <- Run(ctx, root, terminal, []string{}) }() // ends with ctx
		_, _ = typed.Write([]byte("half a line"))                     // it is read: a pipe waits
		synctest.Wait()
		select {
		case code := <-ended:
			t.Errorf("ended with %d while its input was open", code)
		default:
		}
		interrupt()
		synctest.Wait()
		select {
		case code := <-ended:
			if code != Failed || string(read) != "half a line" || out.String() != "prog: interrupted\n" {
				t.Errorf("exit code %d, read %q, printed %q", code, read, &out)
			}
		default:
			t.Error("an interrupt did not end it")
		}
	})
}
