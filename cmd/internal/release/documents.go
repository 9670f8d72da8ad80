package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// documents are read beside the programs, with the directory deploy and the contract.
var documents = []string{
	"README.md", "CHANGELOG.md", "SECURITY.md",
	"cmd/badgebench/README.md", "relay/agent/backend/openapi.yaml",
}

// putDocuments copies the documents, laid out as in the sources, so that links lead to
// them. A link to what stays with the sources becomes plain text.
func putDocuments(stage string) error {
	contract, err := filepath.Glob("proto/badgerelay/v1/*.proto")
	if err != nil {
		return err
	}
	for _, file := range append(contract, documents...) {
		if err := copyFile(filepath.Join(stage, file), file, 0o644); err != nil {
			return err
		}
	}
	if err := copyTree(filepath.Join(stage, "deploy"), "deploy"); err != nil {
		return err
	}
	return filepath.WalkDir(stage, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".md" {
			return err
		}
		page, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return writeFile(path, withoutDeadLinks(page, filepath.Dir(path)), 0o644)
	})
}

// link is one of Markdown's: its words, its target, and a place in that.
var link = regexp.MustCompile(`\[([^\]]+)\]\(([^)#\s]+)(#[^)\s]*)?\)`)

// withoutDeadLinks leaves the words alone of links to files that are not there, as seen
// from the directory of the page.
func withoutDeadLinks(page []byte, dir string) []byte {
	return link.ReplaceAllFunc(page, func(found []byte) []byte {
		parts := link.FindSubmatch(found)
		target := string(parts[2])
		if strings.Contains(target, ":") { // somewhere else
			return found
		}
		if _, err := os.Stat(filepath.Join(dir, target)); err == nil {
			return found
		}
		return bytes.Clone(parts[1])
	})
}
