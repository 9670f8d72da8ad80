package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestVersions(t *testing.T) {
	for version, good := range map[string]bool{
		"0.1.0": true, "1.22.333": true, "1.2.3~rc1": true, "0.0.0~git20260131.0123abc": true, "0.0.0~git20260131.0123abc~dirty": false,
		"": false, "v1.2.3": false, "1.2": false, "1.2.3-4": false, "devel": false, "1.2.3~": false, "1.2.3\n": false,
	} {
		if err := checkVersion(version); (err == nil) != good {
			t.Errorf("version %q: %v, want it taken: %t", version, err, good)
		}
	}
}

// staged is a release with a program and a page in the stage of the platform,
// written at the time.
func staged(t *testing.T, p platform, at time.Time) *release {
	t.Helper()
	dir := t.TempDir()
	r := &release{version: "1.2.3", time: time.Unix(1_700_000_000, 0).UTC(), stage: filepath.Join(dir, "stage"), out: filepath.Join(dir, "out")}
	if err := os.Mkdir(r.out, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{p.exe("badgerelay"): 0o755, "man/badgerelay.1.gz": 0o644} {
		file := filepath.Join(r.stage, p.String(), name)
		if err := writeFile(file, []byte("of "+name), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, at, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.archive(p); err != nil {
		t.Fatal(err)
	}
	if err := r.sums(); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestArchivesDependOnContentsAlone(t *testing.T) {
	for _, p := range []platform{{"linux", "arm64"}, {"windows", "amd64"}} {
		var sums [2][]byte
		for i := range sums {
			r := staged(t, p, time.Unix(1_700_000_000+int64(i)*86400, 0))
			var err error
			if sums[i], err = os.ReadFile(filepath.Join(r.out, "SHA256SUMS")); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(sums[0], sums[1]) || len(bytes.Fields(sums[0])) != 2 {
			t.Errorf("%s: packed twice it is\n%s\n%s", p, sums[0], sums[1])
		}
	}
}

func TestWhatArchivesHold(t *testing.T) {
	r := staged(t, platform{"linux", "amd64"}, time.Now())
	file, err := os.Open(filepath.Join(r.out, "badgerelay_1.2.3_linux_amd64.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for in := tar.NewReader(unzipped); ; {
		h, err := in.Next()
		if err != nil {
			break // the end, or what is missing below
		}
		got = append(got, fmt.Sprintf("%s %o %s %s", h.Name, h.Mode, h.Uname, h.ModTime.UTC().Format(time.DateOnly)))
	}
	want := "badgerelay_1.2.3_linux_amd64/badgerelay 755 root 2023-11-14\nbadgerelay_1.2.3_linux_amd64/man/badgerelay.1.gz 644 root 2023-11-14"
	if strings.Join(got, "\n") != want {
		t.Errorf("the archive has\n%s\nwant\n%s", strings.Join(got, "\n"), want)
	}

	r = staged(t, platform{"windows", "amd64"}, time.Now())
	zipped, err := zip.OpenReader(filepath.Join(r.out, "badgerelay_1.2.3_windows_amd64.zip"))
	if err != nil {
		t.Fatal(err)
	}
	defer zipped.Close()
	if name := zipped.File[0].Name; name != "badgerelay_1.2.3_windows_amd64/badgerelay.exe" {
		t.Errorf("the zip begins with %s", name)
	}
}

// TestLinksOfAnArchive follows the links of the pages that are packed: each leads to
// something in the archive, and every package has what they lead to.
func TestLinksOfAnArchive(t *testing.T) {
	t.Chdir("../../..")
	stage := t.TempDir()
	if err := putDocuments(stage); err != nil {
		t.Fatal(err)
	}
	target := regexp.MustCompile(`\]\(([^)#\s]+)`)
	followed := 0
	err := filepath.WalkDir(stage, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".md" {
			return err
		}
		page, err := os.ReadFile(path)
		for _, m := range target.FindAllSubmatch(page, -1) {
			to := filepath.Join(filepath.Dir(path), string(m[1]))
			if strings.Contains(string(m[1]), "://") {
				continue
			}
			followed++
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s: a link to %s, which is not packed", path, m[1])
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if followed < 50 {
		t.Errorf("%d links followed, want those of all pages", followed)
	}
	if readme, err := os.ReadFile(filepath.Join(stage, "README.md")); err != nil || !bytes.Contains(readme, []byte("read CONTRIBUTING.md and ARCHITECTURE.md")) {
		t.Errorf("the words of links to what is not packed are gone, or %v", err)
	}
	packages, err := filepath.Glob("deploy/packages/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range packages {
		contents, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(contents, []byte("src: deploy,")) {
			continue // it has no pages
		}
		for _, document := range documents {
			if filepath.Dir(document) != "." && !bytes.Contains(contents, []byte("src: "+document+",")) {
				t.Errorf("%s packs no %s", file, document)
			}
		}
	}
}
