package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"

	"badgerelay/auth/certs"
	"badgerelay/cmd/internal/command"
	"badgerelay/relay/agent/enrolment"
	"badgerelay/relay/agent/keyring"

	"github.com/spf13/cobra"
)

func (a *app) metadataCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "metadata", Short: "print or export the organization's metadata document",
		Long: `Prints the organization's auth metadata document, from which a relay learns the
certificates whose keys sign: the current one, the next and, in its overlap, the
previous. Publish it over https and tell the relay's operator its address
(badgerelay organization update --metadata-url), or have 'badgeagent serve' serve
it. Where a web server serves the file, export it again after each cert command.`,
		Example: `  badgeagent metadata
  badgeagent metadata --file /var/www/html/metadata/json/1/index.json`,
		RunE: a.do(func(context.Context, []string) error { return a.exportMetadata(file) }),
	}
	cmd.Flags().StringVar(&file, "file", "", "where to export to (default, and with -: standard output)")
	a.DryRunFlag(cmd)
	command.Files(cmd, "file")
	return a.OutputFlag(cmd)
}

func (a *app) exportMetadata(file string) error {
	r, err := a.rollover()
	if err != nil {
		return err
	}
	if r.Current == nil {
		return a.missing(enrolment.ErrNoCertificate)
	}
	organization := r.Current.Domain
	p, err := a.proxy()
	switch {
	case err == nil:
		organization = p.Organization
	case !errors.Is(err, enrolment.ErrNoProxy):
		return err
	}
	store, err := a.kept().Certificates()
	if err != nil {
		return err
	}
	document, err := keyring.Document(store, organization)
	if err != nil {
		return err
	}
	data, err := document.Marshal()
	if err != nil {
		return err
	}
	if file == "" || file == standardOutput {
		_, err := a.Out.Write(append(data, '\n'))
		return err
	}
	if file, err = filepath.Abs(file); err != nil {
		return err
	}
	if err := isFile(file); err != nil {
		return err
	}
	if a.DryRun {
		return a.wouldWrite([]string{file}, "export the metadata document to %s", file)
	}
	if err := writePublic(file, data); err != nil {
		return err
	}
	a.Say("The metadata document is in %s.", file)
	return a.result(struct {
		File string `json:"file"`
	}{file})
}

// standardOutput is the file that is none.
const standardOutput = "-"

// isFile refuses a directory in the place of a file to write, and a file in the place of
// its directory.
func isFile(file string) error {
	switch info, err := os.Stat(file); {
	case err == nil && info.IsDir():
		return command.Usage("--file %s is a directory; name a file in it", file)
	case errors.Is(err, syscall.ENOTDIR):
		return command.Usage("--file %s can't be there: what should be its directory is a file", file)
	}
	return nil
}

// writePublic writes what others are to read, such as a web server, into a directory
// that they may open, if it has to be made.
func writePublic(file string, data []byte) error {
	if err := isFile(file); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil { // #nosec G301 -- see above
		return err
	}
	return certs.WriteFile(file, data, 0o644)
}
