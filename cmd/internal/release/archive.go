package main

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// archive packs what was put together for the platform: a zip for Windows, a
// tar.gz for others.
func (r *release) archive(p platform) error {
	stage, name := os.DirFS(filepath.Join(r.stage, p.String())), fmt.Sprintf("badgerelay_%s_%s", r.version, p)
	if p.os == "windows" {
		return r.publish(name+".zip", func(file io.Writer) error { return r.zip(file, stage, name) })
	}
	return r.publish(name+".tar.gz", func(file io.Writer) error { return r.tar(file, stage, name) })
}

func (r *release) publish(name string, write func(io.Writer) error) error {
	file, err := os.Create(filepath.Join(r.out, name))
	if err != nil {
		return err
	}
	return errors.Join(write(file), file.Close())
}

func (r *release) zip(file io.Writer, stage fs.FS, top string) error {
	w := zip.NewWriter(file)
	return errors.Join(packTree(stage, func(name string, mode fs.FileMode, _ int) (io.Writer, error) {
		header := &zip.FileHeader{Name: top + "/" + name, Method: zip.Deflate, Modified: r.time}
		header.SetMode(mode)
		return w.CreateHeader(header)
	}), w.Close())
}

func (r *release) tar(file io.Writer, stage fs.FS, top string) error {
	zipped, err := gzip.NewWriterLevel(file, gzip.BestCompression)
	if err != nil {
		return err
	}
	w := tar.NewWriter(zipped)
	return errors.Join(packTree(stage, func(name string, mode fs.FileMode, size int) (io.Writer, error) {
		return w, w.WriteHeader(&tar.Header{
			Typeflag: tar.TypeReg, Name: top + "/" + name, Mode: int64(mode), Size: int64(size), ModTime: r.time, Uname: "root", Gname: "root",
		})
	}), w.Close(), zipped.Close())
}

// packTree packs the files of a directory in the order of their names. begin begins one of so
// many bytes.
func packTree(stage fs.FS, begin func(name string, mode fs.FileMode, size int) (io.Writer, error)) error {
	return fs.WalkDir(stage, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		text, err := fs.ReadFile(stage, path)
		if err != nil {
			return err
		}
		w, err := begin(path, info.Mode().Perm(), len(text))
		if err != nil {
			return err
		}
		_, err = w.Write(text)
		return err
	})
}

// sums writes the SHA-256 of every file of the release, in the form of sha256sum.
func (r *release) sums() error {
	entries, err := os.ReadDir(r.out)
	if err != nil {
		return err
	}
	var sums strings.Builder
	for _, entry := range entries {
		text, err := os.ReadFile(filepath.Join(r.out, entry.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(text), entry.Name())
	}
	return writeFile(filepath.Join(r.out, "SHA256SUMS"), []byte(sums.String()), 0o644)
}
