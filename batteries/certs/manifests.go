package certs

import (
	"slices"

	"github.com/emerald-platform/emerald/battery"
	"github.com/emerald-platform/emerald/kit/kube"
)

func manifests(s battery.Site) ([]kube.Object, error) {
	crds, err := definitions()
	if err != nil {
		return nil, err
	}
	return slices.Concat(crds, rights(), validations(), requester(s.Config.(Config)), authority(s)), nil
}
