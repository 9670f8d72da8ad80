package configfile

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Lines says on which line each field of a file stands, by its path.
type Lines map[string]int

// Decode copies a file's content into the struct that into points to, by the
// yaml tags of its fields. err joins every *Problem; into holds what could be
// read.
func Decode(file string, data []byte, into any) (Lines, error) {
	d := &decoder{file: file, lines: Lines{}}
	var root yaml.Node
	if err := yaml.Unmarshal(data, &root); err != nil {
		d.syntax(err)
		return d.lines, errors.Join(d.errs...)
	}
	if len(root.Content) == 1 {
		d.decode(root.Content[0], reflect.ValueOf(into).Elem(), "")
	}
	return d.lines, errors.Join(d.errs...)
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
	if guess := Nearest(key.Value, known); guess != "" {
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
