package client

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/emerald-platform/emerald/api/v1alpha1"
)

// ManifestFile is the file in a source folder that describes its App: an App
// manifest, usually without an image.
const ManifestFile = "emerald.yaml"

// ReadManifest returns the App that a source folder describes, or nil when it
// has no [ManifestFile]. Unknown fields are errors.
func ReadManifest(dir fs.FS) (*v1alpha1.App, error) {
	raw, err := fs.ReadFile(dir, ManifestFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", ManifestFile, err)
	}
	return parseManifest(raw)
}

func parseManifest(raw []byte) (*v1alpha1.App, error) {
	var kind struct {
		Kind       string `json:"kind"`
		APIVersion string `json:"apiVersion"`
	}
	if err := yaml.Unmarshal(raw, &kind); err != nil {
		return nil, fmt.Errorf("%s is no YAML: %w", ManifestFile, err)
	}
	if kind.Kind != "App" || kind.APIVersion != v1alpha1.GroupVersion.String() {
		return nil, fmt.Errorf("%s holds kind %q of %q: it must hold kind App of %s", ManifestFile, kind.Kind, kind.APIVersion, v1alpha1.GroupVersion)
	}
	app := &v1alpha1.App{}
	text, err := yaml.YAMLToJSONStrict(raw)
	if err != nil {
		return nil, fmt.Errorf("%s is no YAML: %w", ManifestFile, err)
	}
	strict, err := kjson.UnmarshalStrict(text, app)
	if err = errors.Join(append(strict, err)...); err != nil {
		return nil, fmt.Errorf("%s: %w", ManifestFile, err)
	}
	if app.Name != "" {
		if err := CheckName(app.Name); err != nil {
			return nil, fmt.Errorf("%s: metadata.%w", ManifestFile, err)
		}
	}
	return app, nil
}

// ErrEnvFile says that a file of variables has a line that is none.
var ErrEnvFile = errors.New("write each line as NAME=value; # begins a comment")

// ReadEnv returns the variables in r, a file as `docker run --env-file` and
// shells know it: NAME=value lines, blank lines and # comments, an optional
// `export`, and quotes around a value: within double ones \n, \t, \" and \\ mean
// what they do in a shell, within single ones nothing does.
func ReadEnv(r io.Reader) (map[string]string, error) {
	out := map[string]string{}
	in := bufio.NewScanner(r)
	in.Buffer(nil, maxLine)
	for n := 1; in.Scan(); n++ {
		line := strings.TrimSpace(in.Text())
		if n == 1 {
			line = strings.TrimPrefix(line, "\uFEFF")
		}
		if line == "" || line[0] == '#' {
			continue
		}
		line = strings.TrimSpace(strings.TrimPrefix(line, "export "))
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			return nil, fmt.Errorf("line %d: %w", n, ErrEnvFile)
		}
		name = strings.TrimSpace(name)
		if err := CheckVariable(name); err != nil {
			return nil, fmt.Errorf("line %d: %w: %w", n, err, ErrEnvFile)
		}
		value, err := unquote(strings.TrimSpace(value))
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		out[name] = value
	}
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("read variables: %w", err)
	}
	return out, nil
}

// unquote takes the quotes off a value, if it has any.
func unquote(s string) (string, error) {
	if s == "" || s[0] != '"' && s[0] != '\'' {
		return s, nil
	}
	quote := s[0]
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == quote:
			if rest := strings.TrimSpace(s[i+1:]); rest != "" && rest[0] != '#' {
				return "", fmt.Errorf("there is something after the closing %c: %w", quote, ErrEnvFile)
			}
			return b.String(), nil
		case s[i] == '\\' && quote == '"' && i+1 < len(s):
			i++
			b.WriteByte(unescape(s[i]))
		default:
			b.WriteByte(s[i])
		}
	}
	return "", fmt.Errorf("a value opens with %c and does not close: %w", quote, ErrEnvFile)
}

func unescape(c byte) byte {
	switch c {
	case 'n':
		return '\n'
	case 't':
		return '\t'
	case 'r':
		return '\r'
	}
	return c
}
