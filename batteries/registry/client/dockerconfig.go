package client

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"

	"github.com/emerald-platform/emerald/kit/durable"
)

// DockerConfig returns the file in which docker and most other clients of
// registries look for passwords: $DOCKER_CONFIG/config.json, else
// ~/.docker/config.json.
func DockerConfig() (string, error) {
	if dir := os.Getenv("DOCKER_CONFIG"); dir != "" {
		return filepath.Join(dir, "config.json"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("find your home directory: %w: set DOCKER_CONFIG", err)
	}
	return filepath.Join(home, ".docker", "config.json"), nil
}

// helperRule keeps a configuration from naming any program it likes.
var helperRule = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)

// Save puts the credentials where docker finds them: into the file, or into the
// credential store that the file names. Whatever else is in the file stays.
func (c Credentials) Save(ctx context.Context, file string) error {
	var config map[string]json.RawMessage
	raw, err := os.ReadFile(file)
	if err == nil && len(bytes.TrimSpace(raw)) > 0 {
		err = json.Unmarshal(raw, &config)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read %s: %w: repair or remove it", file, err)
	}
	if config == nil { // no file, an empty one, or null
		config = map[string]json.RawMessage{}
	}
	helper, err := helperFor(config, c.Server)
	if err != nil {
		return fmt.Errorf("read %s: %w: repair or remove it", file, err)
	}
	if helper != "" {
		return c.store(ctx, helper)
	}
	var auths map[string]json.RawMessage
	if config["auths"] != nil {
		if err := json.Unmarshal(config["auths"], &auths); err != nil {
			return fmt.Errorf("read %s: %w: repair or remove it", file, err)
		}
	}
	if auths == nil {
		auths = map[string]json.RawMessage{}
	}
	auths[c.Server], err = json.Marshal(map[string]string{
		"auth": base64.StdEncoding.EncodeToString([]byte(c.Username + ":" + c.Password)),
	})
	if err == nil {
		config["auths"], err = json.Marshal(auths)
	}
	if err == nil {
		raw, err = json.MarshalIndent(config, "", "\t")
	}
	if err != nil {
		return fmt.Errorf("encode %s: %w", file, err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("make the directory of %s: %w", file, err)
	}
	if err := durable.WriteFile(file, append(raw, '\n'), 0o600); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return nil
}

// helperFor returns the name of the credential store that docker would ask, or
// "".
func helperFor(config map[string]json.RawMessage, server string) (string, error) {
	var (
		helpers map[string]string
		helper  string
	)
	if raw := config["credHelpers"]; raw != nil {
		if err := json.Unmarshal(raw, &helpers); err != nil {
			return "", err
		}
	}
	if raw := config["credsStore"]; raw != nil {
		if err := json.Unmarshal(raw, &helper); err != nil {
			return "", err
		}
	}
	if helpers[server] != "" {
		helper = helpers[server]
	}
	if helper != "" && !helperRule.MatchString(helper) {
		return "", fmt.Errorf("%q is no name of a credential store", helper)
	}
	return helper, nil
}

// store hands the credentials to a credential store, over its standard input.
func (c Credentials) store(ctx context.Context, helper string) error {
	in, err := json.Marshal(map[string]string{"ServerURL": c.Server, "Username": c.Username, "Secret": c.Password})
	if err != nil {
		return fmt.Errorf("encode credentials: %w", err)
	}
	program := "docker-credential-" + helper
	cmd := exec.CommandContext(ctx, program, "store")
	cmd.Stdin = bytes.NewReader(in)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("store the password with %s, which your docker configuration names: %w: %s", program, err, bytes.TrimSpace(out))
	}
	return nil
}
