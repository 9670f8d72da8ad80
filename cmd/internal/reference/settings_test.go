package reference

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// Settings is a table of every setting of a configuration: the fields of the struct
// root in one of the directories, and of the structs in them, by their yaml tags.
// What it says of each is the field's comment.
func Settings(t *testing.T, root string, directories ...string) string {
	t.Helper()
	s := settings{t: t, structs: map[string]*ast.StructType{}, docs: map[string]string{}, aliases: map[string]string{}}
	for _, d := range directories {
		s.read(d)
	}
	s.walk("", root)
	return table([]string{"setting", "value", "meaning"}, s.rows)
}

type settings struct {
	t       *testing.T
	structs map[string]*ast.StructType
	docs    map[string]string // of structs
	aliases map[string]string // of types
	rows    [][]string
}

func (s *settings) read(directory string) {
	s.t.Helper()
	files, err := filepath.Glob(filepath.Join(directory, "*.go"))
	if err != nil || len(files) == 0 {
		s.t.Fatalf("%s: %v, %d files", directory, err, len(files))
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, d := range file.Decls {
			if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.TYPE {
				s.types(g)
			}
		}
	}
}

func (s *settings) types(g *ast.GenDecl) {
	for _, spec := range g.Specs {
		spec := spec.(*ast.TypeSpec) // of a declaration of types
		switch is := spec.Type.(type) {
		case *ast.StructType:
			s.structs[spec.Name.Name] = is
			s.docs[spec.Name.Name] = g.Doc.Text() + spec.Doc.Text()
		case *ast.SelectorExpr:
			s.aliases[spec.Name.Name] = is.Sel.Name
		}
	}
}

// walk adds the rows of a struct's fields, whose names begin with prefix.
func (s *settings) walk(prefix, name string) {
	is := s.structs[name]
	keys := map[string]string{}
	for _, f := range is.Fields.List {
		if key := yamlKey(f); key != "" {
			for _, n := range f.Names {
				keys[n.Name] = key
			}
		}
	}
	for _, f := range is.Fields.List {
		key := yamlKey(f)
		if key == "" {
			continue
		}
		kind, many := s.kind(f.Type)
		if s.structs[kind] == nil {
			if f.Doc == nil {
				s.t.Errorf("%s%s has no comment of its own", prefix, key)
			}
			s.rows = append(s.rows, []string{"`" + prefix + key + "`", kind, s.meaning(f.Doc.Text(), key, keys)})
			continue
		}
		at := prefix + key
		if many {
			at += "[]"
		}
		s.walk(at+".", kind)
	}
}

func yamlKey(f *ast.Field) string {
	if f.Tag == nil {
		return ""
	}
	key, _, _ := strings.Cut(reflect.StructTag(strings.Trim(f.Tag.Value, "`")).Get("yaml"), ",")
	return key
}

// kind is what a value is called, or the name of its struct; many: a list of it.
func (s *settings) kind(e ast.Expr) (name string, many bool) {
	switch e := e.(type) {
	case *ast.StarExpr:
		return s.kind(e.X)
	case *ast.ArrayType:
		name, _ = s.kind(e.Elt)
		if s.structs[name] == nil {
			name = "list"
		}
		return name, true
	case *ast.MapType:
		return "map", false
	case *ast.SelectorExpr:
		return s.kind(e.Sel)
	case *ast.Ident:
		name = e.Name
		if to, ok := s.aliases[name]; ok && s.structs[name] == nil && s.structs[to] != nil {
			name = to
		}
	}
	switch name {
	case "string":
		return "text", false
	case "bool":
		return "true or false", false
	case "int", "int64", "uint32", "float64":
		return "number", false
	case "Duration":
		return "duration", false
	}
	return name, false
}

var word = regexp.MustCompile(`\b[A-Z]\w*\b`)

// meaning is the comment of a key as readers of the file need it: without the
// field's name before it, and with other fields by their keys.
func (s *settings) meaning(comment, key string, keys map[string]string) string {
	text := strings.ReplaceAll(strings.Join(strings.Fields(comment), " "), "|", "\\|")
	text = word.ReplaceAllStringFunc(text, func(w string) string {
		if key, ok := keys[w]; ok {
			return "`" + key + "`"
		}
		return w
	})
	for _, subject := range []string{"`" + key + "` is ", "`" + key + "` are ", "`" + key + "` "} {
		if rest, ok := strings.CutPrefix(text, subject); ok && !strings.HasPrefix(rest, "and ") {
			return rest
		}
	}
	return text
}
