package main

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"badgerelay/auth/authmetadata"
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
	if err := a.mayExport(file, isDocument); err != nil {
		return err
	}
	if a.DryRun {
		return a.wouldWrite([]string{file}, "export the metadata document to %s", file)
	}
	if err := a.writePublic(file, data); err != nil {
		return err
	}
	a.Say("The metadata document is in %s.", file)
	return a.result(struct {
		File string `json:"file"`
	}{file})
}

// standardOutput is the file that is none.
const standardOutput = "-"

// mayExport refuses a file that an export would destroy: the keys' directory is the
// store's alone, and what is there already has to be such an export, or empty. export says
// what is wrong with it as one.
func (a *app) mayExport(file string, export func(content []byte) error) error {
	info, err := os.Stat(file)
	switch {
	case err == nil && info.IsDir():
		return command.Usage("--file %s is a directory; name a file in it", file)
	case errors.Is(err, syscall.ENOTDIR):
		return command.Usage("--file %s can't be there: what should be its directory is a file", file)
	case a.kept().HoldsKeys(file):
		return command.Usage("--file %s can't be there: the agent keeps its keys in that directory; name another", file)
	}
	if replaced := err == nil && info.Mode().IsRegular(); !replaced {
		return nil // the write says what is wrong with it, if anything
	}
	content, err := readExport(file)
	if err != nil {
		return err
	}
	if err := export(content); len(content) > 0 && err != nil {
		return command.Usage("--file %s is there, and holds something else than is written to it (%w); name another file, or delete it", file, err)
	}
	return nil
}

// maxExport is more than an export has.
const maxExport = 1 << 20

func readExport(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close() // it was only read
	return io.ReadAll(io.LimitReader(f, maxExport))
}

func isDocument(content []byte) error {
	d, err := authmetadata.Parse(content)
	if err == nil && len(d.SigningCertificates()) == 0 {
		err = errors.New("no metadata document with certificates")
	}
	return err
}

func isCertificate(content []byte) error {
	_, err := x509.ParseCertificate(content)
	return err
}

// writePublic writes what others are to read, such as a web server, into a directory
// that they may open, if it has to be made.
func (a *app) writePublic(file string, data []byte) error {
	dir := filepath.Dir(file)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		a.Say("Creating directory %s...", dir)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { // #nosec G301 -- see above
		return err
	}
	return certs.WriteFile(file, data, 0o644)
}
