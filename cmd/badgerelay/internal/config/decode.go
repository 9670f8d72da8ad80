package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// maxFile bounds the file; a configuration with a thousand apps has 300 KiB.
const maxFile = 4 << 20

// Problem is one thing that is wrong with the configuration.
type Problem struct {
	// File is the file's name as it was given; empty: there is none.
	File string
	// Line is where, from 1; 0: no line is to blame, something is missing.
	Line int
	// Field is the path of the field, such as "apps[1].token.key_file"; empty:
	// the whole file.
	Field string
	// Text says what is wrong and what would be right.
	Text string
	// Warning marks what is worth a look but can be lived with.
	Warning bool
}

// Error returns "file:line: field: text".
func (p *Problem) Error() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File)
		if p.Line > 0 {
			fmt.Fprintf(&b, ":%d", p.Line)
		}
		b.WriteString(": ")
	}
	if p.Field != "" {
		b.WriteString(p.Field + ": ")
	}
	b.WriteString(p.Text)
	return b.String()
}

// Problems returns the problems joined in err, in order; one that is none of
// ours comes as a Problem with its text.
func Problems(err error) []*Problem {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []*Problem
		for _, e := range joined.Unwrap() {
			all = append(all, Problems(e)...)
		}
		return all
	}
	if p, ok := errors.AsType[*Problem](err); ok {
		return []*Problem{p}
	}
	return []*Problem{{Text: err.Error()}}
}

// Load reads and validates the file. Where path is empty, DefaultPath is read
// if it exists, and otherwise the defaults hold. The returned configuration is
// the valid one, with warnings beside it; err joins every *Problem.
func Load(path string) (c *Config, warnings []*Problem, err error) {
	data, path, err := read(path)
	if err != nil {
		return nil, nil, &Problem{Text: err.Error()}
	}
	c, lines, err := parse(path, data)
	problems := append(Problems(err), c.problems(path, lines)...)
	slices.SortStableFunc(problems, func(a, b *Problem) int { return a.Line - b.Line })
	var errs []error
	for _, p := range problems {
		if p.Warning {
			warnings = append(warnings, p)
			continue
		}
		errs = append(errs, p)
	}
	return c, warnings, errors.Join(errs...)
}

func read(path string) ([]byte, string, error) {
	optional := path == ""
	path = or(path, DefaultPath)
	info, err := os.Stat(path)
	if optional && errors.Is(err, fs.ErrNotExist) {
		return nil, "", nil
	}
	if err != nil {
		return nil, path, fmt.Errorf("read configuration: %w", err)
	}
	if info.Size() > maxFile {
		return nil, path, fmt.Errorf("read configuration: %s is larger than %d bytes", path, maxFile)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, path, fmt.Errorf("read configuration: %w", err)
	}
	return data, path, nil
}

// Parse decodes a file without looking at anything it names. err joins every
// *Problem; the configuration holds what could be read.
func Parse(file string, data []byte) (*Config, error) {
	c, _, err := parse(file, data)
	return c, err
}

func parse(file string, data []byte) (*Config, map[string]int, error) {
	c := new(Config)
	d := &decoder{file: file, lines: map[string]int{}}
	var root yaml.Node
	if err := yaml.Unmarshal(data, &root); err != nil {
		d.syntax(err)
		return c, d.lines, errors.Join(d.errs...)
	}
	if len(root.Content) == 1 {
		d.decode(root.Content[0], reflect.ValueOf(c).Elem(), "")
	}
	return c, d.lines, errors.Join(d.errs...)
}

// decoder copies YAML nodes into a struct, and goes on after each problem.
type decoder struct {
	file  string
	lines map[string]int // by field path
	errs  []error
}

func (d *decoder) problem(line int, field, format string, args ...any) {
	d.errs = append(d.errs, &Problem{File: d.file, Line: line, Field: field, Text: fmt.Sprintf(format, args...)})
}

// syntax takes the line out of the library's text: "yaml: line 3: ...".
func (d *decoder) syntax(err error) {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 0
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		number, after, _ := strings.Cut(rest, ":")
		if n, err := strconv.Atoi(number); err == nil {
			line, text = n, strings.TrimSpace(after)
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
		d.problem(n.Line, field, "must be a group of keys, not %s", kindName(n))
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if key.Kind != yaml.ScalarNode {
			d.problem(key.Line, field, "a key must be a word, not %s", kindName(key))
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
	var known []string
	for i := range v.NumField() {
		name := v.Type().Field(i).Tag.Get("yaml")
		if name == key.Value {
			d.decode(value, v.Field(i), field)
			return
		}
		known = append(known, name)
	}
	if guess := nearest(key.Value, known); guess != "" {
		d.problem(key.Line, field, "unknown key; did you mean %q?", guess)
		return
	}
	d.problem(key.Line, field, "unknown key; known here: %s", strings.Join(known, ", "))
}

func (d *decoder) sequence(n *yaml.Node, v reflect.Value, field string) {
	if n.Kind != yaml.SequenceNode {
		d.problem(n.Line, field, "must be a list, not %s", kindName(n))
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
		d.problem(n.Line, field, "must be one value, not %s", kindName(n))
		return
	}
	if v.Type() == durationType {
		duration, err := time.ParseDuration(n.Value)
		if err != nil {
			d.problem(n.Line, field, "%q is not a duration such as 500ms, 15m or 720h", n.Value)
			return
		}
		v.SetInt(int64(duration))
		return
	}
	if v.Kind() == reflect.String {
		v.SetString(n.Value) // as written, so that a version 15.10 stays one
		return
	}
	if err := n.Decode(v.Addr().Interface()); err != nil {
		d.problem(n.Line, field, "%q is not %s", n.Value, typeName(v.Kind()))
	}
}

func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a group of keys"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		return fmt.Sprintf("the value %q", n.Value)
	}
	return "an alias"
}

func typeName(k reflect.Kind) string {
	switch k {
	case reflect.Bool:
		return "true or false"
	case reflect.Float64:
		return "a number"
	}
	return "a whole number"
}

func join(field, key string) string {
	if field == "" {
		return key
	}
	return field + "." + key
}

// Read reads the file, or DefaultPath where path is empty and it exists,
// without looking at anything that it names: enough for a client of the relay,
// who may not open the relay's secrets.
func Read(path string) (*Config, error) {
	data, path, err := read(path)
	if err != nil {
		return nil, &Problem{Text: err.Error()}
	}
	return Parse(path, data)
}
