package client

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var creds = Credentials{Server: "registry.test", Username: "serviceaccount", Password: "secret"}

func TestSave(t *testing.T) {
	for name, tc := range map[string]struct{ before, after string }{
		"no file":   {"", `{"auths":{"registry.test":{"auth":"c2VydmljZWFjY291bnQ6c2VjcmV0"}}}`},
		"null":      {"null", `{"auths":{"registry.test":{"auth":"c2VydmljZWFjY291bnQ6c2VjcmV0"}}}`},
		"no auths":  {`{"auths":null}`, `{"auths":{"registry.test":{"auth":"c2VydmljZWFjY291bnQ6c2VjcmV0"}}}`},
		"an empty":  {" \n", `{"auths":{"registry.test":{"auth":"c2VydmljZWFjY291bnQ6c2VjcmV0"}}}`},
		"a new one": {`{"auths":{"a.test":{"auth":"x","email":"e"}},"psFormat":"p"}`, `{"auths":{"a.test":{"auth":"x","email":"e"},"registry.test":{"auth":"c2VydmljZWFjY291bnQ6c2VjcmV0"}},"psFormat":"p"}`},
		"an old one": {`{"auths":{"registry.test":{"auth":"old","identitytoken":"old"}},"credHelpers":{"a.test":"x"}}`,
			`{"auths":{"registry.test":{"auth":"c2VydmljZWFjY291bnQ6c2VjcmV0"}},"credHelpers":{"a.test":"x"}}`},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "docker", "config.json")
			if tc.before != "" {
				if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(tc.before), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if err := creds.Save(context.Background(), file); err != nil {
				t.Fatal(err)
			}
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var got, want any
			if err := errors.Join(json.Unmarshal(raw, &got), json.Unmarshal([]byte(tc.after), &want)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("file (-want +got):\n%s", diff)
			}
			if fi, err := os.Stat(file); err != nil || fi.Mode().Perm() != 0o600 {
				t.Errorf("mode %v, %v: others may read the password", fi.Mode(), err)
			}
		})
	}
}

func TestSaveKeepsABrokenFile(t *testing.T) {
	for _, text := range []string{"{", `{"auths":1}`, `{"credsStore":["a"]}`, `{"credsStore":"../../evil"}`} {
		file := filepath.Join(t.TempDir(), "config.json")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := creds.Save(context.Background(), file)
		if err == nil || !strings.Contains(err.Error(), file) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", text, err)
		}
		if raw, err := os.ReadFile(file); err != nil || string(raw) != text {
			t.Errorf("%s became %s, %v", text, raw, err)
		}
	}
}

func TestSaveInACredentialStore(t *testing.T) {
	dir := t.TempDir()
	program := "#!/bin/sh\n[ \"$1\" = store ] && cat > " + dir + "/stored\n"
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-test"), []byte(program), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	file := filepath.Join(dir, "config.json")
	const config = `{"credsStore":"test"}`
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := creds.Save(context.Background(), file); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "stored"))
	if want := `{"Secret":"secret","ServerURL":"registry.test","Username":"serviceaccount"}`; err != nil || string(raw) != want {
		t.Errorf("the store got %s, %v; want %s", raw, err, want)
	}
	if raw, err := os.ReadFile(file); err != nil || string(raw) != config {
		t.Errorf("the file became %s, %v", raw, err)
	}
	if err := os.Remove(filepath.Join(dir, "docker-credential-test")); err != nil {
		t.Fatal(err)
	}
	if err := creds.Save(context.Background(), file); err == nil || !strings.Contains(err.Error(), "docker-credential-test") {
		t.Errorf("without the program: %v", err)
	}
}
