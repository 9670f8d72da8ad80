package configfile

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Lines says on which line each field of a file stands, by its path.
type Lines map[string]int

// Mistakable is a configuration that may be mixed up with that of another program.
type Mistakable interface {
	// Other returns the other program, and all keys of its configuration's first level.
	Other() (program string, keys []string)
}

// Decode copies a file's content into the struct that into points to, by the
// yaml tags of its fields. err joins every *Problem; into holds what could be
// read. The file of the other program of a Mistakable is one problem.
func Decode(file string, data []byte, into any) (Lines, error) {
	d := &decoder{file: file, lines: Lines{}}
	var root, next yaml.Node
	documents := yaml.NewDecoder(bytes.NewReader(data))
	if line := notUTF8(data); line > 0 {
		d.problem(line, "", "not YAML: this line is not text in UTF-8")
		return d.lines, errors.Join(d.errs...)
	}
	if err := documents.Decode(&root); err != nil && !errors.Is(err, io.EOF) { // the end: there are comments alone
		d.syntax(data, err)
		return d.lines, errors.Join(d.errs...)
	}
	if len(root.Content) == 1 {
		if m, ok := into.(Mistakable); ok && d.ofOther(root.Content[0], m, keysOf(reflect.TypeOf(into).Elem())) {
			return d.lines, errors.Join(d.errs...)
		}
		d.decode(root.Content[0], reflect.ValueOf(into).Elem(), "")
	}
	switch err := documents.Decode(&next); {
	case err == nil && len(next.Content) == 1 && next.Content[0].ShortTag() == "!!null": // "---" ends the file
	case err == nil:
		d.problem(next.Line, "", "a second document begins here; a configuration is one")
	case !errors.Is(err, io.EOF):
		d.syntax(data, err)
	}
	return d.lines, errors.Join(d.errs...)
}

// ofOther enters the problem that a file is the other program's: it has a key that is
// not among ours, and none that the other lacks.
func (d *decoder) ofOther(root *yaml.Node, m Mistakable, ours []string) bool {
	program, theirs := m.Other()
	var foreign *yaml.Node
	for i := 0; root.Kind == yaml.MappingNode && i < len(root.Content); i += 2 {
		key := root.Content[i]
		switch our, their := slices.Contains(ours, key.Value), slices.Contains(theirs, key.Value); {
		case our && !their:
			return false
		case their && !our:
			foreign = cmp.Or(foreign, key)
		}
	}
	if foreign != nil {
		d.problem(foreign.Line, "", "this looks like the configuration of %s, which alone has %s", program, foreign.Value)
	}
	return foreign != nil
}

// notUTF8 returns the first line that is not UTF-8; 0: all are, or it is the UTF-16 that
// the library knows by its mark.
func notUTF8(data []byte) int {
	if utf8.Valid(data) || bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		return 0
	}
	for n, line := range bytes.Split(data, []byte("\n")) {
		if !utf8.Valid(line) {
			return n + 1
		}
	}
	return 0
}

// tabbed reports whether a tab is in the indentation of a line.
func tabbed(data []byte, line int) bool {
	lines := bytes.Split(data, []byte("\n"))
	if line < 1 || line > len(lines) {
		return false
	}
	indent := len(lines[line-1]) - len(bytes.TrimLeft(lines[line-1], " \t"))
	return bytes.ContainsRune(lines[line-1][:indent], '\t')
}

// decoder copies YAML nodes into a struct, and goes on after each problem.
type decoder struct {
	file  string
	lines Lines
	errs  []error
}

func (d *decoder) problem(line int, field, format string, args ...any) {
	d.errs = append(d.errs, &Problem{File: d.file, Line: line, Field: field, Text: fmt.Sprintf(format, args...)})
}

// syntax takes the line out of the library's text: "yaml: line 3: ...".
func (d *decoder) syntax(data []byte, err error) {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 0
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		number, after, _ := strings.Cut(rest, ":")
		if n, err := strconv.Atoi(number); err == nil {
			line, text = n, strings.TrimSpace(after)
		}
	}
	if text == "found character that cannot start any token" { // of a line, or of a value on it
		text = "a value that begins with %, @ or ` needs quotes"
		if tabbed(data, line) {
			text = "a tab begins this line; YAML takes spaces there"
		}
	}
	d.problem(line, "", "not YAML: %s", text)
}

func (d *decoder) decode(n *yaml.Node, v reflect.Value, field string) {
	if n.Kind == yaml.AliasNode {
		d.problem(n.Line, field, "anchors and aliases are not supported; write the value out")
		return
	}
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		return // "section:" with nothing below it, and an empty file
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.decode(n, v.Elem(), field)
	case reflect.Struct:
		d.mapping(n, field, func(key, value *yaml.Node, field string) {
			d.member(key, value, v, field)
		})
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		d.mapping(n, field, func(key, value *yaml.Node, field string) {
			element := reflect.New(v.Type().Elem()).Elem()
			d.decode(value, element, field)
			v.SetMapIndex(reflect.ValueOf(key.Value), element)
		})
	case reflect.Slice:
		d.sequence(n, v, field)
	default:
		d.scalar(n, v, field)
	}
}

func (d *decoder) mapping(n *yaml.Node, field string, each func(key, value *yaml.Node, field string)) {
	if n.Kind != yaml.MappingNode {
		d.problem(n.Line, field, "must be a group of keys, not %s", kindName(n, field))
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if key.Kind != yaml.ScalarNode {
			d.problem(key.Line, field, "a key must be a word, not %s", kindName(key, field))
			continue
		}
		if first, twice := seen[key.Value]; twice {
			d.problem(key.Line, join(field, key.Value), "given twice, first on line %d", first)
			continue
		}
		seen[key.Value] = key.Line
		d.lines[join(field, key.Value)] = key.Line
		each(key, n.Content[i+1], join(field, key.Value))
	}
}

func (d *decoder) member(key, value *yaml.Node, v reflect.Value, field string) {
	known := keysOf(v.Type())
	if i := slices.Index(known, key.Value); i >= 0 {
		d.decode(value, v.Field(i), field)
		return
	}
	if guess := Nearest(key.Value, known); guess != "" {
		d.problem(key.Line, field, "unknown key; did you mean %q?", guess)
		return
	}
	d.problem(key.Line, field, "unknown key; known here: %s", strings.Join(known, ", "))
}

// keysOf returns the keys of a group, in the order of the struct's fields.
func keysOf(group reflect.Type) (keys []string) {
	for i := range group.NumField() {
		keys = append(keys, group.Field(i).Tag.Get("yaml"))
	}
	return keys
}

func (d *decoder) sequence(n *yaml.Node, v reflect.Value, field string) {
	if n.Kind != yaml.SequenceNode {
		d.problem(n.Line, field, "must be a list, not %s", kindName(n, field))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, element := range n.Content {
		at := fmt.Sprintf("%s[%d]", field, i)
		d.lines[at] = element.Line
		d.decode(element, v.Index(i), at)
	}
}

var durationType = reflect.TypeFor[Duration]()

func (d *decoder) scalar(n *yaml.Node, v reflect.Value, field string) {
	if n.Kind != yaml.ScalarNode {
		d.problem(n.Line, field, "must be one value, not %s", kindName(n, field))
		return
	}
	if v.Type() == durationType {
		duration, err := time.ParseDuration(n.Value)
		if err != nil {
			d.problem(n.Line, field, "%s is not a duration such as 500ms, 15m or 720h", quoted(n))
			return
		}
		v.SetInt(int64(duration))
		return
	}
	if v.Kind() == reflect.String {
		if strings.ContainsAny(n.Value, "\n\r\x00") || strings.HasPrefix(n.Value, "-----BEGIN ") {
			d.problem(n.Line, field, "must be one line; keys and certificates are in files of their own, whose names are given")
			return
		}
		v.SetString(n.Value) // as written, so that a version 15.10 stays one
		return
	}
	wrong := "is not " + typeName(v.Kind())
	form, number := forms[v.Kind()]
	switch {
	case n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0:
		wrong = "is text, in quotes, and not " + typeName(v.Kind())
	case number && !form.MatchString(n.Value):
	case n.Decode(v.Addr().Interface()) == nil:
		return
	case number:
		wrong = "is too large"
	}
	d.problem(n.Line, field, "%s %s", quoted(n), wrong)
}

// forms are how numbers are written. To the library 010 is 8, and of 1.5 it takes 1 as a
// whole number.
var forms = map[reflect.Kind]*regexp.Regexp{
	reflect.Int:     regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`),
	reflect.Float64: regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?$`),
}

// longest is how many bytes of a wrong value an error shows: one that is longer may be
// a secret that was given in the wrong place.
const longest = 40

// quoted returns a value for an error.
func quoted(n *yaml.Node) string {
	if len(n.Value) > longest {
		return "this value"
	}
	return strconv.Quote(n.Value)
}

// kindName says what a node is. The value that a whole file is may be a secret.
func kindName(n *yaml.Node, field string) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a group of keys"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		if field == "" || len(n.Value) > longest {
			return "one value"
		}
		return fmt.Sprintf("the value %q", n.Value)
	}
	return "an alias"
}

func typeName(k reflect.Kind) string {
	switch k {
	case reflect.Bool:
		return "true or false"
	case reflect.Float64:
		return "a number such as 300 or 0.5"
	}
	return "a whole number such as 300"
}

func join(field, key string) string {
	if field == "" {
		return key
	}
	return field + "." + key
}

// Nearest returns the known word that is at most two edits away from word, and fewer than
// it has bytes, the closest one; empty if there is none.
func Nearest(word string, known []string) string {
	best, distance := "", min(3, len(word))
	for _, k := range known {
		if n := edits(word, k, distance); n < distance {
			best, distance = k, n
		}
	}
	return best
}

// edits returns the Levenshtein distance of a and b, or limit if it is not
// below that.
func edits(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
