package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

// programs are in every archive.
var programs = []string{"apnssim", "badgeagent", "badgebench", "badgerelay"}

// platform is what programs are built for, in Go's words.
type platform struct{ os, arch string }

func (p platform) String() string { return p.os + "_" + p.arch }

// exe is the program's file on the platform.
func (p platform) exe(program string) string {
	if p.os == "windows" {
		return program + ".exe"
	}
	return program
}

// here is the platform on which this runs; its programs are asked for their
// manual pages.
var here = platform{runtime.GOOS, runtime.GOARCH}

// versionForm is what both kinds of packages take for a version: a digit first,
// and no hyphen, with which a revision would begin.
var versionForm = regexp.MustCompile(`^[0-9]+\.[0-9]+\.[0-9]+(?:~[0-9a-z.]+)?$`)

func checkVersion(version string) error {
	if !versionForm.MatchString(version) {
		return fmt.Errorf("--version is %q, want one such as 1.2.3, or 1.2.3~rc1 before it", version)
	}
	return nil
}

// platforms returns what was built, in the order of their names.
func (r *release) platforms() ([]platform, error) {
	entries, err := os.ReadDir(r.build)
	if err != nil {
		return nil, err
	}
	var all []platform
	for _, entry := range entries {
		system, arch, found := strings.Cut(entry.Name(), "_")
		if !found || !entry.IsDir() {
			return nil, fmt.Errorf("%s is no platform", filepath.Join(r.build, entry.Name()))
		}
		all = append(all, platform{system, arch})
	}
	if !slices.Contains(all, here) {
		return nil, fmt.Errorf("%s has no programs for %s, which would write the manual pages", r.build, here)
	}
	return all, nil
}

// put puts together what the platform's archive and packages hold.
func (r *release) put(ctx context.Context, p platform) error {
	stage := filepath.Join(r.stage, p.String())
	for _, program := range programs {
		built := filepath.Join(r.build, p.String(), p.exe(program))
		if err := copyFile(filepath.Join(stage, p.exe(program)), built, 0o755); err != nil {
			return err
		}
		bill := filepath.Join(r.out, fmt.Sprintf("%s_%s_%s.cdx.json", program, r.version, p))
		if err := r.bill(ctx, bill, built); err != nil {
			return fmt.Errorf("bill of materials of %s: %w", program, err)
		}
		if err := copyFile(filepath.Join(stage, "sbom", program+".cdx.json"), bill, 0o644); err != nil {
			return err
		}
	}
	if p.os == "windows" {
		if err := copyFile(filepath.Join(stage, "install-badgeagent.cmd"), "deploy/windows/install-badgeagent.cmd", 0o644); err != nil {
			return err
		}
	} else if err := r.words(ctx, stage); err != nil {
		return err
	}
	return putDocuments(stage)
}

// words writes what the programs say of themselves: completions and manual
// pages.
func (r *release) words(ctx context.Context, stage string) error {
	pages := filepath.Join(stage, "man")
	if err := os.MkdirAll(pages, 0o755); err != nil {
		return err
	}
	for _, program := range programs {
		own := filepath.Join(r.build, here.String(), here.exe(program))
		if _, err := output(ctx, own, "man", pages, "--date", r.time.Format(time.DateOnly)); err != nil {
			return err
		}
		for shell, file := range map[string]string{"bash": program, "zsh": "_" + program, "fish": program + ".fish"} {
			text, err := output(ctx, own, "completion", shell)
			if err != nil {
				return err
			}
			if err := writeFile(filepath.Join(stage, "completion", shell, file), text, 0o644); err != nil {
				return err
			}
		}
	}
	files, err := filepath.Glob(filepath.Join(pages, "*.1"))
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := compress(file); err != nil {
			return err
		}
	}
	return nil
}

// bill writes what a built program consists of, in CycloneDX's form.
func (r *release) bill(ctx context.Context, file, built string) error {
	_, err := output(ctx, filepath.Join(r.tools, "cyclonedx-gomod"), "bin", "-json", "-noserial", "-notimestamp",
		"-version", r.version, "-output", file, built)
	return err
}

// output runs a program and returns what it prints.
func output(ctx context.Context, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s", filepath.Base(program), strings.Join(args, " "), err, stderr.Bytes())
	}
	return out, nil
}

// compress puts file.gz in the place of the file; without name and time, so that
// it is the same each time.
func compress(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var packed bytes.Buffer
	w, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return err
	}
	_, err = w.Write(text)
	if err := errors.Join(err, w.Close()); err != nil {
		return err
	}
	return errors.Join(writeFile(file+".gz", packed.Bytes(), 0o644), os.Remove(file))
}

// writeFile writes a file, and the directories above it. Its mode is exactly that.
func writeFile(file string, text []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(file, text, mode); err != nil {
		return err
	}
	return os.Chmod(file, mode)
}

func copyFile(to, from string, mode fs.FileMode) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return writeFile(to, text, mode)
}

// copyTree copies what operators read in a directory: not its tests, and not
// what packages are made of.
func copyTree(to, from string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == "packages" || entry.Name() == "windows"):
			return fs.SkipDir
		case entry.IsDir() || strings.HasSuffix(path, ".go"):
			return nil
		}
		relative, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		return copyFile(filepath.Join(to, relative), path, 0o644)
	})
}
