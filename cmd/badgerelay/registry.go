package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"badgerelay/cmd/badgerelay/internal/config"
	"badgerelay/cmd/internal/command"
	"badgerelay/relay/registry"
)

func (p process) registryCommand() *cobra.Command {
	c := p.OutputFlag(&cobra.Command{Use: "registry", Short: "work on the registry's database itself"})
	c.AddCommand(p.registryBackup(), p.registryCopy())
	return c
}

func (p process) registryBackup() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use: "backup <file>", Short: "copy the SQLite registry while the relay runs",
		Long: `Writes the registry, as it is at one moment, to a new file, or for - to standard
output. Relays go on meanwhile. To restore it, stop the relay, remove the
registry's file with its -wal and -shm, and put the copy in its place, owned by
the relay's user. PostgreSQL has pg_dump for that.`,
		Example: `  badgerelay registry backup /backup/registry-$(date +%F).db
  kubectl -n badgerelay exec deploy/badgerelay -- badgerelay registry backup - > registry.db`,
		RunE: func(c *cobra.Command, args []string) error { return p.backup(c.Context(), file, args[0]) },
	}
	configFlag(c, &file)
	return c
}

func (p process) backup(ctx context.Context, file, into string) error {
	if into == "-" {
		if err := p.Binary("a registry"); err != nil {
			return err
		}
	}
	c, err := config.Read(file)
	if err != nil {
		return err
	}
	path := c.RegistryPath()
	if path == "" {
		return command.Invalidf("the registry is in PostgreSQL; pg_dump makes a backup of it")
	}
	if _, err := os.Stat(path); file == "" && errors.Is(err, fs.ErrNotExist) {
		return command.Invalidf("there is no registry %s; name the relay's configuration with --config, if it says another path", path)
	}
	of := "registry.path " + path
	if into == "-" {
		return misconfigured(wrap(of, registry.BackupTo(ctx, path, p.Out)))
	}
	switch info, err := os.Lstat(into); {
	case err == nil && info.IsDir():
		return command.Invalidf("%s is a directory; name a file in it", into)
	case err == nil:
		return fmt.Errorf("there is %s already, and a backup takes no other file's place", into)
	}
	if err := registry.Backup(ctx, path, into); err != nil {
		return misconfigured(wrap(of, err))
	}
	return p.Print(struct {
		Registry string `json:"registry"`
		Backup   string `json:"backup"`
	}{path, into}, func() { p.Say("%s is a copy of %s.", into, path) })
}

// copyFlags say from where to where.
type copyFlags struct{ from, to, passwordFile string }

func (p process) registryCopy() *cobra.Command {
	var f copyFlags
	c := &cobra.Command{
		Use: "copy", Short: "copy a SQLite registry into PostgreSQL",
		Long: `Copies organizations, credentials and subscriptions, then reads both sides and
compares them row by row. The relay of the SQLite file has to be stopped, and no
relay may use the PostgreSQL database yet. A copy that was interrupted goes on
where it was. The file is not changed, save that its schema is brought up to date.`,
		Example: `  badgerelay registry copy --from sqlite:/var/lib/badgerelay/registry.db \
    --to 'postgres://badgerelay@db.example.com/badgerelay?sslmode=verify-full' --to-password-file /etc/badgerelay/db.password`,
		RunE: func(c *cobra.Command, _ []string) error { return p.copy(c.Context(), f) },
	}
	c.Flags().StringVar(&f.from, "from", "", "sqlite: and the path of the file")
	c.Flags().StringVar(&f.to, "to", "", "the database, as in registry.url")
	c.Flags().StringVar(&f.passwordFile, "to-password-file", "", "a file with its password, as in registry.password_file")
	command.Files(c, "to-password-file")
	command.Require(c, "from", "to")
	return c
}

func (p process) copy(ctx context.Context, f copyFlags) (err error) {
	path, ok := strings.CutPrefix(f.from, "sqlite:")
	if !ok || path == "" {
		return command.Invalidf("--from is sqlite: and a path, not %q", f.from)
	}
	if err := registry.CheckPostgresURL(f.to); err != nil {
		return command.Invalidf("--to: %w", err)
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) { // opening would make it
		return command.Invalidf("--from: there is no file %s", path)
	}
	unlock, err := registry.LockForRelay(ctx, path)
	if err != nil {
		return misconfigured(fmt.Errorf("--from: %s: %w", path, err))
	}
	defer func() { err = errors.Join(err, unlock()) }()
	from, err := registry.OpenSQLite(ctx, registry.SQLiteConfig{Path: path})
	if err != nil {
		return misconfigured(fmt.Errorf("--from: %w", err))
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	to, err := registry.OpenPostgres(ctx, registry.PostgresConfig{URL: f.to, PasswordFile: f.passwordFile})
	if err != nil {
		return misconfigured(fmt.Errorf("--to: %w", err))
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	tables := []copiedTable{}
	err = registry.Copy(ctx, from, to, func(c registry.Copied) {
		tables = append(tables, copiedTable{c.Table, c.Rows, c.New, fmt.Sprintf("%x", c.Checksum)})
		p.Say("%-22s %10d rows, %10d copied now, SHA-256 %x", c.Table, c.Rows, c.New, c.Checksum)
	})
	if err != nil {
		return fmt.Errorf("%w; the same command goes on where this one stopped", err)
	}
	return p.Print(struct {
		Tables []copiedTable `json:"tables"`
	}{tables}, func() {
		p.Say("Both are the same. Next: set registry.url in the relay's configuration, and start it.")
	})
}

// copiedTable is one table that is the same on both sides.
type copiedTable struct {
	Table  string `json:"table"`
	Rows   int64  `json:"rows"`
	New    int64  `json:"new"` // copied by this run
	SHA256 string `json:"sha256"`
}
