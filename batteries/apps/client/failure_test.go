package client

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emerald-platform/emerald/api/v1alpha1"
)

func TestFailureWithoutImage(t *testing.T) {
	app := &v1alpha1.App{ObjectMeta: metav1.ObjectMeta{Name: "shop"}, Spec: v1alpha1.AppSpec{Image: "a.example/shop:1"}}
	const story = `Back-off pulling image "a.example/shop:1": ErrImagePull: failed to pull and unpack image "a.example/shop:1": ` +
		`failed to resolve reference "a.example/shop:1": failed to do request: Head "https://a.example/v2/shop/manifests/1": dial tcp: lookup a.example: no such host`
	for _, reason := range []string{"ErrImagePull", "ImagePullBackOff"} {
		f := &Failure{App: app, Reason: reason, Message: story}
		if !f.NoImage() {
			t.Errorf("%s does not count as an image that cannot be had", reason)
		}
		const want = `app "shop": image "a.example/shop:1" cannot be pulled: dial tcp: lookup a.example: no such host: check its name`
		if got := f.Error(); !strings.HasPrefix(got, want) {
			t.Errorf("got %q, want it to begin with %q", got, want)
		}
	}
	f := &Failure{App: app, Reason: "CrashLoopBackOff", Message: "the app ended"}
	if got, want := f.Error(), `app "shop": CrashLoopBackOff: the app ended`; f.NoImage() || got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestCheckVariable(t *testing.T) {
	names := map[string]bool{
		"A": true, "LOG_LEVEL": true, "_x": true, "a.b-c": true, "A1": true, strings.Repeat("a", 256): true,
		"": false, "1A": false, "A B": false, "A=": false, "-A": false, "Ä": false, "A\nB": false, strings.Repeat("a", 257): false,
	}
	for name, ok := range names {
		if err := CheckVariable(name); (err == nil) != ok {
			t.Errorf("%q: %v, want accepted: %v", name, err, ok)
		}
	}
}
