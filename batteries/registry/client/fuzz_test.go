package client

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzNextPage checks that no Link header sends the password to another host.
func FuzzNextPage(f *testing.F) {
	for _, s := range []string{`</v2/a>; rel="next"`, `<//evil.test/>; rel="next"`, `<@evil.test/>; rel="next"`, `<:80/>; rel="next"`, `<\\evil.test>; rel="next"`, `<`, `>`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, link string) {
		path := nextPage(link)
		if path == "" {
			return
		}
		asked := ""
		c := &Client{creds: creds, http: &http.Client{Transport: transport(func(r *http.Request) { asked = r.URL.Host })}}
		_, err := c.Do(t.Context(), http.MethodGet, path, nil, nil)
		if asked != "" && asked != creds.Server {
			t.Errorf("%q leads to %s (%v)", link, asked, err)
		}
	})
}

// transport answers every request with nothing.
type transport func(*http.Request)

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	t(r)
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader("{}")), Request: r}, nil
}

// FuzzSave starts with any file as docker's configuration: it is refused and
// stays as it is, or everything else in it is still there.
func FuzzSave(f *testing.F) {
	for _, s := range []string{"", "{}", "null", `{"auths":{"a":{"auth":"x"}},"z":[1]}`, `{"auths":null}`, `{"auths":[]}`, `{"credsStore":"../x"}`, `{"credHelpers":{"registry.test":""}}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, content string) {
		var before map[string]json.RawMessage
		ours := strings.TrimSpace(content) == "" || json.Unmarshal([]byte(content), &before) == nil
		if ours {
			if helper, err := helperFor(before, creds.Server); err != nil || helper != "" {
				return // that would run a program
			}
		}
		file := filepath.Join(t.TempDir(), "config.json")
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		err := creds.Save(t.Context(), file)
		raw, readErr := os.ReadFile(file)
		if readErr != nil {
			t.Fatal(readErr)
		}
		if err != nil {
			if string(raw) != content {
				t.Errorf("%q was refused (%v) and is %q now", content, err, raw)
			}
			return
		}
		var after map[string]json.RawMessage
		if err := json.Unmarshal(raw, &after); err != nil {
			t.Fatalf("%q became %q: %v", content, raw, err)
		}
		for key, was := range before {
			if key == "auths" {
				continue
			}
			var a, b any
			if json.Unmarshal(was, &a) != nil || json.Unmarshal(after[key], &b) != nil || !cmp.Equal(a, b) {
				t.Errorf("%q of %q became %q", key, content, after[key])
			}
		}
		var auths map[string]struct{ Auth string }
		if err := json.Unmarshal(after["auths"], &auths); err == nil && auths[creds.Server].Auth == "" {
			t.Errorf("%q became %q: the credentials are not in it", content, raw)
		}
	})
}
