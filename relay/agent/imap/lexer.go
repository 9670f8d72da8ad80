package imap

import (
	"encoding/base64"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// literalMark stands in a lexer's text for the next of its literals.
const literalMark = 0

// lexer takes a response apart, as liberally as it can: any blanks between
// words, parentheses that are not closed, quotes that are not either.
type lexer struct {
	text     []byte // what is left
	buffer   []byte // what text is a part of
	literals []string
	depth    int    // of open parentheses
	further  uint64 // numbers of a SEARCH that text does not hold
	nested   bool   // a SEARCH's numbers have ended
}

// reset makes room for another response.
func (l *lexer) reset() { *l = lexer{buffer: l.buffer[:0], text: l.buffer[:0]} }

// add adds to the end of the response.
func (l *lexer) add(part []byte) {
	begin := len(l.text)
	l.text = append(l.text, part...)
	for i := begin; i < len(l.text); i++ {
		if l.text[i] == literalMark {
			l.text[i] = '?'
		}
	}
	l.buffer = l.text
}

// word returns the next atom, string or literal; empty: there is none. Words
// that are empty strings are passed over.
func (l *lexer) word() string {
	for len(l.text) > 0 {
		switch b := l.text[0]; {
		case b == ' ' || b == '\t' || b == '\r' || b == '\n':
			l.text = l.text[1:]
		case b == '(':
			l.depth++
			l.text = l.text[1:]
		case b == ')':
			l.depth--
			l.text = l.text[1:]
		case b == literalMark:
			l.text = l.text[1:]
			if word := l.literal(); word != "" {
				return word
			}
		case b == '"':
			if word := l.quoted(); word != "" {
				return word
			}
		default:
			return l.atom()
		}
	}
	return ""
}

func (l *lexer) literal() string {
	if len(l.literals) == 0 {
		return "" // the beginning of a response is looked at without
	}
	word := l.literals[0]
	l.literals = l.literals[1:]
	return word
}

func (l *lexer) quoted() string {
	var word []byte
	for i := 1; i < len(l.text); i++ {
		switch b := l.text[i]; {
		case b == '\\' && i+1 < len(l.text):
			i++
			word = append(word, l.text[i])
		case b == '"':
			l.text = l.text[i+1:]
			return string(word)
		default:
			word = append(word, b)
		}
	}
	l.text = nil
	return string(word)
}

func (l *lexer) atom() string {
	end := slices.IndexFunc(l.text, func(b byte) bool {
		return b == ' ' || b == '\t' || b == '(' || b == ')' || b == literalMark
	})
	if end < 0 {
		end = len(l.text)
	}
	word := string(l.text[:end])
	l.text = l.text[end:]
	return word
}

// rest returns what is left as it is.
func (l *lexer) rest() string { return strings.TrimLeft(string(l.text), " \t") }

// search says whether the response is a SEARCH, human whether its end is text
// for people, in which nothing is a literal.
func (l *lexer) search() bool { return l.begins("SEARCH") }

func (l *lexer) human() bool {
	peek := &lexer{text: l.text[:min(len(l.text), 200)], literals: l.literals}
	switch first := peek.word(); first {
	case "+":
		return true
	case "*":
		return slices.Contains([]string{"OK", "NO", "BAD", "BYE", "PREAUTH"}, strings.ToUpper(peek.word()))
	default:
		return first != ""
	}
}

func (l *lexer) begins(kind string) bool {
	peek := &lexer{text: l.text[:min(len(l.text), 200)]}
	return peek.word() == "*" && strings.EqualFold(peek.word(), kind)
}

// number reads digits that fit.
func number(word string) (uint64, bool) {
	if word == "" || word[0] == '+' {
		return 0, false
	}
	n, err := strconv.ParseUint(word, 10, 64)
	return n, err == nil
}

// cutCode parts a status response's code from its text.
func cutCode(s string) (code, human string) {
	if !strings.HasPrefix(s, "[") {
		return "", s
	}
	code, human, closed := strings.Cut(s[1:], "]")
	if !closed {
		return "", s
	}
	return strings.TrimSpace(code), human
}

// capabilities returns those that are written as they should be. IMAP4rev2 is
// left out beside IMAP4rev1: until ENABLE the server speaks the older of the
// two, and writes the names of folders that way (RFC 9051, section 6.3.1).
func capabilities(l *lexer) string {
	all := []string{}
	for {
		word := l.word()
		if word == "" {
			break
		}
		if word = strings.ToUpper(word); word == atom(word) {
			all = append(all, word)
		}
	}
	old := slices.Contains(all, "IMAP4REV1")
	all = slices.DeleteFunc(all, func(c string) bool { return old && c == "IMAP4REV2" })
	for i, c := range all {
		all[i] = strings.Replace(c, "IMAP4REV", "IMAP4rev", 1)
	}
	if len(all) == 0 {
		return "IMAP4rev1"
	}
	return strings.Join(all, " ")
}

// atom returns what of word an atom may hold (RFC 9051, section 9), at least one
// character.
func atom(word string) string {
	clean := strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' || strings.ContainsRune(`(){%*"\]`, r) {
			return -1
		}
		return r
	}, word)
	if clean == "" {
		return "X"
	}
	return clean[:min(len(clean), 100)]
}

// text returns what of s can be shown to people, at least one character.
func text(s string) string {
	clean := strings.TrimLeft(strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, s[:min(len(s), 1000)]), " [") // a bracket would begin a code
	if clean == "" {
		return "-"
	}
	return clean
}

// quote writes a name as a quoted string; encodeName has made it printable.
func quote(name string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name) + `"`
}

// encodeName returns a folder's name in IMAP4rev1's form of UTF-7 (RFC 3501,
// section 5.1.3).
func encodeName(name string) string {
	if strings.EqualFold(name, inbox) {
		return inbox
	}
	var b strings.Builder
	for len(name) > 0 {
		end := strings.IndexFunc(name, special)
		if end < 0 {
			end = len(name)
		}
		b.WriteString(strings.ReplaceAll(name[:end], "&", "&-"))
		name = name[end:]
		if name == "" {
			break
		}
		if end = strings.IndexFunc(name, func(r rune) bool { return !special(r) }); end < 0 {
			end = len(name)
		}
		var units []byte
		for _, u := range utf16.Encode([]rune(name[:end])) {
			units = append(units, byte(u>>8), byte(u))
		}
		b.WriteString("&" + nameEncoding.EncodeToString(units) + "-")
		name = name[end:]
	}
	return b.String()
}

var nameEncoding = base64.NewEncoding("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,").WithPadding(base64.NoPadding)

// special says whether a character of a name has to be encoded.
func special(r rune) bool { return r < ' ' || r > '~' || r == utf8.RuneError }
