{{/* Training of a generator that goes wrong while it goes on. */}}
{{- define "hdgan.alerts.training" -}}
{{- $in := include "hdgan.alerts.pods.scope" . -}}
{{- $limits := .Values.monitoring.prometheusRule.thresholds -}}
{{- $training := "The training of run {{ $labels.run }}{{ with $labels.namespace }} in namespace {{ . }}{{ end }}" -}}
- alert: HdganTrainingLossNotFinite
  # x - x is 0 of every number, and nothing that equals 0 of NaN and of infinity.
  expr: |-
    count by (namespace, run, stage, term) (hdgan_training_loss{ {{- $in -}} } - hdgan_training_loss{ {{- $in -}} } != 0) > 0
  for: 10m
  labels: {severity: critical}
  annotations:
    summary: {{ printf "%s has a loss that is not finite" $training | quote }}
    description: >-
      {{ $training }} reports {{ "{{ $labels.term }}" }} as NaN or infinite: it diverges, and what it makes from here is worth
      nothing. End it with hdgan cancel, and submit it again with a lower ganTrainer.learningRate, a higher r1Gamma or
      precision: float32.
- alert: HdganTrainingUpdatesSkipped
  expr: |-
    sum by (namespace, run, stage) (increase(hdgan_training_skipped_updates_total{ {{- $in -}} }[1h])) > {{ $limits.skippedUpdates }}
  labels: {severity: warning}
  annotations:
    summary: {{ printf "%s leaves out updates" $training | quote }}
    description: >-
      {{ $training }} has left out {{ "{{ $value | humanize }}" }} updates in the last hour, because their gradients were not
      finite. A single one now and then is normal in 16-bit training. After 10 in a row it ends by itself; if these go on,
      train with a lower ganTrainer.learningRate or precision: float32.
- alert: HdganTrainingAugmentationAtBound
  expr: |-
    min by (namespace, run, stage) (min_over_time(hdgan_training_ada_probability{ {{- $in -}} }[30m])) >= {{ $limits.adaProbability }}
  for: {{ $limits.adaHours }}h
  labels: {severity: warning}
  annotations:
    summary: {{ printf "%s over-fits" $training | quote }}
    description: >-
      {{ $training }} has held its augmentation at p = {{ `{{ $value | printf "%.2f" }}` }} for {{ $limits.adaHours }} hours: there is no
      more of it to give, and the discriminator still knows the tiles by heart. More slides help, or an end at the best snapshot.
- alert: HdganTrainingKidRising
  expr: |-
    (
      max by (namespace, run, stage) (hdgan_training_kid{ {{- $in -}} })
        > {{ $limits.kidFactor }} * max by (namespace, run, stage) (hdgan_training_best_kid{ {{- $in -}} })
    ) and (
      max by (namespace, run, stage) (hdgan_training_kid{ {{- $in -}} })
        - max by (namespace, run, stage) (hdgan_training_best_kid{ {{- $in -}} }) > {{ $limits.kidRise }}
    )
  for: 2h
  labels: {severity: warning}
  annotations:
    summary: {{ printf "%s gets worse" $training | quote }}
    description: >-
      {{ $training }} is at a KID of {{ `{{ $value | printf "%.4f" }}` }}, well above its best, and has been for 2 hours. The best
      snapshot is kept, too; unless the KID falls again, the time is better spent on more slides or on other settings.
{{- end -}}
