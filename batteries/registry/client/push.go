package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// PushBlob stores a blob unless the repository has it.
func (c *Client) PushBlob(ctx context.Context, repository string, content []byte) (digest.Digest, error) {
	d := digest.FromBytes(content)
	_, err := c.Do(ctx, http.MethodHead, "/v2/"+repository+"/blobs/"+d.String(), nil, nil)
	if err == nil {
		return d, nil
	}
	if !errors.Is(err, ErrNotFound) {
		return "", err
	}
	header := http.Header{"Content-Type": {"application/octet-stream"}}
	path := "/v2/" + repository + "/blobs/uploads/?" + url.Values{"digest": {d.String()}}.Encode()
	_, err = c.Do(ctx, http.MethodPost, path, header, content)
	return d, err
}

// PushImage stores a manifest under a tag or a digest; "" means its own digest.
// What it names must be there.
func (c *Client) PushImage(ctx context.Context, repository, reference string, m v1.Manifest) (v1.Descriptor, error) {
	m.SchemaVersion = 2
	if m.MediaType == "" {
		m.MediaType = v1.MediaTypeImageManifest
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("encode a manifest: %w", err)
	}
	desc := v1.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	if reference == "" {
		reference = desc.Digest.String()
	}
	_, err = c.Do(ctx, http.MethodPut, "/v2/"+repository+"/manifests/"+reference, http.Header{"Content-Type": {m.MediaType}}, raw)
	return desc, err
}

// Pull returns a blob, or a manifest by tag or digest, as it is stored.
func (c *Client) Pull(ctx context.Context, repository, kind, reference string) ([]byte, error) {
	resp, err := c.Do(ctx, http.MethodGet, "/v2/"+repository+"/"+kind+"/"+reference, nil, nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// Referrers lists the manifests of a repository whose subject is d.
func (c *Client) Referrers(ctx context.Context, repository string, d digest.Digest, artifactType string) ([]v1.Descriptor, error) {
	path := "/v2/" + repository + "/referrers/" + d.String()
	if artifactType != "" {
		path += "?" + url.Values{"artifactType": {artifactType}}.Encode()
	}
	var out []v1.Descriptor
	for path != "" {
		resp, err := c.Do(ctx, http.MethodGet, path, nil, nil)
		if err != nil {
			return nil, err
		}
		var index v1.Index
		if err := json.Unmarshal(resp.Body, &index); err != nil {
			return nil, fmt.Errorf("understand the registry's answer to %s: %w", path, err)
		}
		out = append(out, index.Manifests...)
		path = nextPage(resp.Header.Get("Link"))
	}
	return out, nil
}
