package client

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/distribution/reference"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/emerald-platform/emerald/api/v1alpha1"
)

// ErrName says that something cannot be the name of an App.
var ErrName = errors.New("an app's name becomes part of its host name: use at most 63 of a-z, 0-9 and -, neither first nor last a -")

// CheckName returns an error that is [ErrName] unless name can name an App, a
// label as RFC 1123 section 2.1 has it.
func CheckName(name string) error {
	if len(validation.IsDNS1123Label(name)) > 0 {
		return fmt.Errorf("name %q: %w", name, ErrName)
	}
	return nil
}

// variableName is what the App type takes for the name of a variable.
var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,255}$`)

// CheckVariable returns an error unless name can name a variable of an App.
func CheckVariable(name string) error {
	if !variableName.MatchString(name) {
		return fmt.Errorf("variable %q: a name is letters, digits and _, and begins with no digit: write it like LOG_LEVEL", name)
	}
	return nil
}

// CheckDomain returns an error unless domain can be a custom domain of an App.
func CheckDomain(domain v1alpha1.Domain) error {
	if !strings.Contains(string(domain), ".") || len(validation.IsDNS1123Subdomain(string(domain))) > 0 {
		return fmt.Errorf("domain %q is no host name: write it like shop.example.com", domain)
	}
	return nil
}

// NameOfDir returns the name an App gets from the folder its source is in: the
// folder's own, made a DNS label. It is an error when nothing of it is usable.
func NameOfDir(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find folder %q: %w", dir, err)
	}
	return nameFrom(filepath.Base(abs), "folder")
}

// NameOfImage returns the name an App gets from its image: the last part of the
// repository, made a DNS label.
func NameOfImage(image string) (string, error) {
	ref, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return "", fmt.Errorf("image %q is no reference: %w: write it like registry.emerald.localhost/default/web:1", image, err)
	}
	path := reference.Path(ref)
	return nameFrom(path[strings.LastIndexByte(path, '/')+1:], "image")
}

// nameFrom makes a DNS label of s: letters in lower case, everything foreign a
// dash.
func nameFrom(s, what string) (string, error) {
	var b strings.Builder
	for _, r := range strings.ToLower(s) {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			b.WriteRune(r)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
	}
	name := b.String()
	if len(name) > validation.DNS1123LabelMaxLength {
		name = name[:validation.DNS1123LabelMaxLength]
	}
	name = strings.TrimRight(name, "-")
	if err := CheckName(name); err != nil {
		return "", fmt.Errorf("%s %q gives no name for the app: choose one with --name", what, s)
	}
	return name, nil
}
