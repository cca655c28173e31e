// Command definitions writes the definitions of the Gateway API, standard
// channel, as the module that the program is built with ships them, for
// embedding: one JSON object per line. `go generate ./batteries/gateway` runs
// it.
//
// Descriptions are cut to their first sentence: every API server keeps all of
// them in memory.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

func main() {
	out := flag.String("out", "zz_definitions.json", "file to write")
	flag.Parse()
	if err := run(*out); err != nil {
		fmt.Fprintln(os.Stderr, "definitions:", err)
		os.Exit(1)
	}
}

func run(out string) error {
	dir, err := exec.Command("go", "list", "-mod=mod", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api").Output()
	if err != nil {
		return fmt.Errorf("find the module of the Gateway API: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "config/crd/standard/*.yaml"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("list the definitions: %d files, %w", len(files), err)
	}
	var text bytes.Buffer
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read %q: %w", file, err)
		}
		for _, document := range strings.Split(string(raw), "\n---\n") {
			var object map[string]any
			if err := yaml.Unmarshal([]byte(document), &object); err != nil {
				return fmt.Errorf("read %q: %w", file, err)
			}
			if len(object) == 0 {
				continue
			}
			if object["kind"] == "CustomResourceDefinition" {
				shorten(object)
				delete(object, "status")
			}
			line, err := json.Marshal(object)
			if err != nil {
				return fmt.Errorf("write %q: %w", file, err)
			}
			text.Write(append(line, '\n'))
		}
	}
	if err := os.WriteFile(out, text.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write the definitions: %w", err)
	}
	return nil
}

// shorten cuts the descriptions below a value.
func shorten(v any) {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			if text, ok := value.(string); ok && key == "description" {
				v[key] = firstSentence(text)
				continue
			}
			shorten(value)
		}
	case []any:
		for _, value := range v {
			shorten(value)
		}
	}
}

func firstSentence(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if i := strings.Index(text, ". "); i >= 0 {
		text = text[:i+1]
	}
	if len(text) > 160 {
		text = text[:strings.LastIndexByte(text[:160], ' ')] + " …"
	}
	return text
}
