package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// pack makes the packages of a platform with nfpm, which reads what was put
// together for it. deploy/packages says what goes where.
func (r *release) pack(ctx context.Context, p platform) error {
	for _, name := range []string{"badgerelay", "badgeagent", "apnssim"} {
		if err := r.own(name); err != nil {
			return err
		}
		description, err := filepath.Abs("deploy/packages/" + name + ".yaml")
		if err != nil {
			return err
		}
		for _, kind := range []string{"deb", "rpm"} {
			cmd := exec.CommandContext(ctx, filepath.Join(r.tools, "nfpm"), "package", "--packager", kind, "--config", description, "--target", r.out)
			cmd.Dir = filepath.Join(r.stage, p.String())
			cmd.Env = append(os.Environ(), "VERSION="+r.version, "ARCH="+p.arch,
				"SOURCE_DATE_EPOCH="+strconv.FormatInt(r.time.Unix(), 10))
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("nfpm makes a %s of %s: %w\n%s", kind, name, err, out)
			}
		}
	}
	return nil
}

// own writes what is a package's own and in no archive: its configuration file,
// and its scripts, which are the same for relay and agent but for the name.
func (r *release) own(name string) error {
	scripts, err := filepath.Glob("deploy/packages/*/*.sh")
	if err != nil {
		return err
	}
	to := filepath.Join(r.stage, "packages", name)
	for _, script := range scripts {
		text, err := os.ReadFile(script)
		if err != nil {
			return err
		}
		file := filepath.Join(to, filepath.Base(filepath.Dir(script)), filepath.Base(script))
		if err := writeFile(file, bytes.ReplaceAll(text, []byte("@NAME@"), []byte(name)), 0o755); err != nil {
			return err
		}
	}
	if name == "apnssim" {
		return nil // is all on its command line
	}
	return copyFile(filepath.Join(to, "conffile.yaml"), "deploy/packages/"+name+".conffile.yaml", 0o644)
}
