// Command release makes what a release consists of, for `make release`: archives
// of the programs for each platform, packages of Debian's kind and of Red Hat's, a
// bill of materials for each program, and SHA256SUMS over all of it.
//
// The same commit, version and Go give the same bits, wherever and whenever it
// runs: every time in what it makes is the commit's, every owner is root, and
// everything is written in the order of its name.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1) //nolint:gocritic // nothing is left to stop
	}
}

// release is one release in the making.
type release struct {
	version string    // such as 1.2.3, without a v
	time    time.Time // the commit's, and that of everything in the release
	tools   string    // directory of nfpm and cyclonedx-gomod
	build   string    // directory of the built programs: <os>_<arch>/<program>
	out     string    // directory of what is published
	stage   string    // directory of what goes into archives and packages: <os>_<arch>
}

func run(ctx context.Context, args []string) error {
	var r release
	var epoch int64
	flags := flag.NewFlagSet("release", flag.ContinueOnError)
	flags.StringVar(&r.version, "version", "", "the `version`, such as 1.2.3")
	flags.Int64Var(&epoch, "time", 0, "the commit's time, in `seconds` since 1970")
	flags.StringVar(&r.tools, "tools", "bin/tools", "`directory` of nfpm and cyclonedx-gomod")
	flags.StringVar(&r.build, "build", "bin/build", "`directory` of the programs, built for every platform")
	flags.StringVar(&r.stage, "stage", "bin/stage", "`directory` to put together in what is packed; made anew")
	flags.StringVar(&r.out, "out", "bin/release", "`directory` of the release; made anew")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := checkVersion(r.version); err != nil {
		return err
	}
	if epoch <= 0 {
		return fmt.Errorf("--time is %d, want the commit's", epoch)
	}
	r.time = time.Unix(epoch, 0).UTC()
	for _, path := range []*string{&r.tools, &r.build, &r.stage, &r.out} {
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		*path = absolute
	}
	return r.make(ctx)
}

func (r *release) make(ctx context.Context) error {
	for _, dir := range []string{r.stage, r.out} {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	platforms, err := r.platforms()
	if err != nil {
		return err
	}
	for _, p := range platforms {
		if err := r.put(ctx, p); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		if err := r.archive(p); err != nil {
			return fmt.Errorf("archive for %s: %w", p, err)
		}
		if p.os == "linux" {
			if err := r.pack(ctx, p); err != nil {
				return fmt.Errorf("packages for %s: %w", p, err)
			}
		}
	}
	return r.sums()
}
