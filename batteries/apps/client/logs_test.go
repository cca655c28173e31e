package client

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLines(t *testing.T) {
	tests := map[string]struct {
		text string
		want []string
	}{
		"none":           {"", nil},
		"one":            {"a\n", []string{"a"}},
		"unfinished":     {"a\nb", []string{"a", "b"}},
		"empty ones":     {"\n\na\n", []string{"", "", "a"}},
		"longer than it": {strings.Repeat("x", maxLine+1) + "\n", []string{strings.Repeat("x", maxLine), "x"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var got []string
			if err := lines(strings.NewReader(tt.text), func(s string) error { got = append(got, s); return nil }); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
