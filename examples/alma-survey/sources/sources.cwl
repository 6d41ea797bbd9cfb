cwlVersion: v1.2
class: Workflow
label: Sources
doc: >-
  Find the sources in the corrected image of a product. Where that image is missing, it is made from the uncorrected image
  and the primary beam. Gives one element for each source.

inputs:
  product:
    type: Directory
    label: Product
    doc: A product directory.
  image:
    type: string?
    label: Image
    doc: Name of the image that is not corrected for the primary beam.
  pb:
    type: string?
    label: Primary beam
    doc: Name of the primary beam image.
  pbcor:
    type: string?
    label: Corrected image
    doc: Name of the image that is corrected for the primary beam. Where there is none, it is made from the other two.
  threshold:
    type: double
    default: 5.0
    label: Threshold
    doc: Least signal-to-noise ratio of a source's peak.

steps:
  correct:
    run: correct.cwl
    label: Correct
    doc: Take the corrected image, or make it.
    in:
      product: product
      image: image
      pb: pb
      pbcor: pbcor
    out: [corrected, derived]
  find:
    run: find_sources.cwl
    label: Find
    doc: Run the source finder.
    in:
      corrected: correct/corrected
      threshold: threshold
    out: [member, finder, noise, noise_rise, ra, dec, position_error, flux, flux_error, peak, snr]

outputs:
  member:
    type: string
    label: Member
    doc: ALMA's identifier of the observation (member observation unit set).
    outputSource: find/member
  corrected:
    type: File
    label: Corrected
    doc: The image in which the sources were found.
    outputSource: correct/corrected
  derived:
    type: boolean
    label: Derived
    doc: Whether the corrected image was made here because the product has none.
    outputSource: correct/derived
  finder:
    type: string
    label: Finder
    doc: The source finder that ran, with its version.
    outputSource: find/finder
  noise:
    type: double
    label: Noise
    doc: Noise at the pointing centre in Jy/beam.
    outputSource: find/noise
  noise_rise:
    type: double
    label: Noise rise
    doc: Noise at the edge of the field over noise at the centre. About 4 in a corrected image, 1 in one that is not corrected.
    outputSource: find/noise_rise
  ra:
    type: double[]
    label: RA
    doc: Right ascension of the source in degrees, ICRS.
    outputSource: find/ra
  dec:
    type: double[]
    label: Dec
    doc: Declination of the source in degrees, ICRS.
    outputSource: find/dec
  position_error:
    type: double[]
    label: Position error
    doc: Standard error of the position in each coordinate, in arcsec.
    outputSource: find/position_error
  flux:
    type: double[]
    label: Flux
    doc: Integrated flux density in Jy.
    outputSource: find/flux
  flux_error:
    type: double[]
    label: Flux error
    doc: Standard error of the integrated flux density in Jy, from the noise at the source's place.
    outputSource: find/flux_error
  peak:
    type: double[]
    label: Peak
    doc: Brightest pixel of the source in Jy/beam.
    outputSource: find/peak
  snr:
    type: double[]
    label: S/N
    doc: Peak over the noise at the source's place.
    outputSource: find/snr
