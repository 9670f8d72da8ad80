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

// packer takes an archive's files.
type packer interface {
	// add begins a file of so many bytes, which the caller writes.
	add(name string, mode fs.FileMode, size int64) (io.Writer, error)
	io.Closer
}

// archive packs what was put together for the platform: a zip for Windows, a
// tar.gz for others.
func (r *release) archive(p platform) error {
	name := fmt.Sprintf("badgerelay_%s_%s", r.version, p)
	kind := ".tar.gz"
	if p.os == "windows" {
		kind = ".zip"
	}
	file, err := os.Create(filepath.Join(r.out, name+kind))
	if err != nil {
		return err
	}
	var to packer
	if p.os == "windows" {
		to = &zipPacker{r: r, w: zip.NewWriter(file)}
	} else {
		zipped, err := gzip.NewWriterLevel(file, gzip.BestCompression)
		if err != nil {
			return errors.Join(err, file.Close())
		}
		to = &tarPacker{r: r, zipped: zipped, w: tar.NewWriter(zipped)}
	}
	return errors.Join(packTree(to, filepath.Join(r.stage, p.String()), name), to.Close(), file.Close())
}

// packTree packs the files of a directory in the order of their names, below
// top.
func packTree(to packer, from, top string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		w, err := to.add(top+"/"+filepath.ToSlash(relative), info.Mode().Perm(), info.Size())
		if err != nil {
			return err
		}
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		_, err = io.Copy(w, file)
		return errors.Join(err, file.Close())
	})
}

type tarPacker struct {
	r      *release
	zipped *gzip.Writer
	w      *tar.Writer
}

func (t *tarPacker) add(name string, mode fs.FileMode, size int64) (io.Writer, error) {
	return t.w, t.w.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: name, Mode: int64(mode), Size: size, ModTime: t.r.time, Uname: "root", Gname: "root",
	})
}

func (t *tarPacker) Close() error { return errors.Join(t.w.Close(), t.zipped.Close()) }

type zipPacker struct {
	r *release
	w *zip.Writer
}

func (z *zipPacker) add(name string, mode fs.FileMode, _ int64) (io.Writer, error) {
	header := &zip.FileHeader{Name: name, Method: zip.Deflate, Modified: z.r.time}
	header.SetMode(mode)
	return z.w.CreateHeader(header)
}

func (z *zipPacker) Close() error { return z.w.Close() }

// sums writes the SHA-256 of every file of the release, in the form of sha256sum.
func (r *release) sums() error {
	entries, err := os.ReadDir(r.out)
	if err != nil {
		return err
	}
	var sums strings.Builder
	for _, entry := range entries {
		file, err := os.Open(filepath.Join(r.out, entry.Name()))
		if err != nil {
			return err
		}
		hash := sha256.New()
		_, err = io.Copy(hash, file)
		if err := errors.Join(err, file.Close()); err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%x  %s\n", hash.Sum(nil), entry.Name())
	}
	return writeFile(filepath.Join(r.out, "SHA256SUMS"), []byte(sums.String()), 0o644)
}
