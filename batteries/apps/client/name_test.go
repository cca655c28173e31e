package client

import (
	"errors"
	"strings"
	"testing"
)

func TestNameOfDir(t *testing.T) {
	tests := map[string]string{
		"/src/web":                 "web",
		"/src/My Shop!":            "my-shop",
		"/src/__init__":            "init",
		"/src/2048":                "2048",
		"/src/a--b":                "a-b",
		"/src/" + long(80, "a"):    long(63, "a"),
		"/src/" + long(62, "a-bc"): long(62, "a-bc"),
		"/src/straße":              "stra-e",
		"/src/日本":                  "",
		"/":                        "",
	}
	for dir, want := range tests {
		got, err := NameOfDir(dir)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("NameOfDir(%q) = %q, %v; want %q", dir, got, err, want)
		}
	}
}

// long repeats s up to n bytes.
func long(n int, s string) string { return strings.TrimRight(strings.Repeat(s, n)[:n], "-") }

func TestNameOfImage(t *testing.T) {
	tests := map[string]string{
		"nginx": "nginx",
		"registry.emerald.localhost/default/web:1":          "web",
		"registry.emerald.localhost:443/team/My_app":        "",
		"ghcr.io/x/a.b_c@sha256:" + strings.Repeat("0", 64): "a-b-c",
		"localhost:5000/shop:v1":                            "shop",
		"a b":                                               "",
		"":                                                  "",
		"https://example.com/x":                             "",
		"registry.emerald.localhost/default/web@sha256:tooshort":            "",
		"docker.io/library/debian:bookworm-slim@sha256:" + long(64, "abc1"): "debian",
	}
	for image, want := range tests {
		got, err := NameOfImage(image)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("NameOfImage(%q) = %q, %v; want %q", image, got, err, want)
		}
	}
}

func TestCheckName(t *testing.T) {
	for name, ok := range map[string]bool{"web": true, "2048": true, "": false, "a.b": false, "-a": false, "A": false} {
		if err := CheckName(name); (err == nil) != ok || (err != nil && !errors.Is(err, ErrName)) {
			t.Errorf("CheckName(%q) = %v", name, err)
		}
	}
}

// Whatever a folder is called, its name is a DNS label or an error.
func FuzzName(f *testing.F) {
	for _, s := range []string{"web", "My Shop", "-", "..", "a\x00b", "日本", strings.Repeat("-a", 90)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name, err := nameFrom(s, "folder")
		if err != nil {
			return
		}
		if CheckName(name) != nil {
			t.Errorf("%q gave %q, which is no DNS label", s, name)
		}
		if again, err := nameFrom(name, "folder"); err != nil || again != name {
			t.Errorf("%q gave %q, and that gave %q, %v", s, name, again, err)
		}
	})
}
