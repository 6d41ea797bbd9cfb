cwlVersion: v1.2
class: CommandLineTool
label: Find sources
doc: >-
  Find the sources in a corrected image, with SExtractor where source-extractor is installed and with the Python package
  sep, which holds its algorithms, elsewhere.

requirements:
  InitialWorkDirRequirement:
    listing:
      - entryname: find_sources.py
        entry: {$include: find_sources.py}
hints:
  SoftwareRequirement:
    packages:
      astropy: {specs: ["https://www.astropy.org"]}
      sep: {specs: ["https://sep.readthedocs.io"]}
      source-extractor: {specs: ["https://www.astromatic.net/software/sextractor"]}

baseCommand: [python3, find_sources.py]
inputs:
  corrected:
    type: File
    label: Corrected
    doc: An image that is corrected for the primary beam.
    inputBinding: {position: 1}
  threshold:
    type: double
    label: Threshold
    doc: Least signal-to-noise ratio of a source's peak.
    inputBinding: {position: 2}
outputs:
  # The script writes cwl.output.json.
  member:
    type: string
    label: Member
    doc: ALMA's identifier of the observation.
  finder:
    type: string
    label: Finder
    doc: The source finder that ran, with its version.
  noise:
    type: double
    label: Noise
    doc: Noise at the pointing centre in Jy/beam.
  noise_rise:
    type: double
    label: Noise rise
    doc: Noise at the edge of the field over noise at the centre.
  ra:
    type: double[]
    label: RA
    doc: Right ascension in degrees, ICRS.
  dec:
    type: double[]
    label: Dec
    doc: Declination in degrees, ICRS.
  position_error:
    type: double[]
    label: Position error
    doc: Standard error of the position in each coordinate, in arcsec.
  flux:
    type: double[]
    label: Flux
    doc: Integrated flux density in Jy.
  flux_error:
    type: double[]
    label: Flux error
    doc: Standard error of the integrated flux density in Jy.
  peak:
    type: double[]
    label: Peak
    doc: Brightest pixel in Jy/beam.
  snr:
    type: double[]
    label: S/N
    doc: Peak over the noise at the source's place.
