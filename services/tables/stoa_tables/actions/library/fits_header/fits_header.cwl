cwlVersion: v1.2
class: CommandLineTool
label: Read a FITS header
doc: >-
  Read what most observatories write into the header of a FITS file. To read more, add an output here and its keywords in
  the script.

requirements:
  InitialWorkDirRequirement:
    listing:
      - entryname: fits_header.py
        entry: {$include: fits_header.py}
hints:
  SoftwareRequirement:
    packages:
      astropy: {specs: ["https://www.astropy.org"]}

baseCommand: [python3, fits_header.py]
inputs:
  file:
    type: File
    label: File
    doc: A FITS file.
    inputBinding: {position: 1}
  hdu:
    type: int
    label: HDU
    doc: Number of the header and data unit. What it lacks is read from the primary one.
    default: 0
    inputBinding: {position: 2}
outputs:
  # The script writes cwl.output.json.
  object:
    type: string?
    label: Target
    doc: OBJECT, the name of what was observed.
  telescope:
    type: string?
    label: Telescope
    doc: TELESCOP.
  instrument:
    type: string?
    label: Instrument
    doc: INSTRUME.
  filter:
    type: string?
    label: Filter
    doc: FILTER, or the first of FILTER1 and FILTNAM.
  date_obs:
    type: string?
    label: Date
    doc: DATE-OBS, when the observation began.
  exposure:
    type: double?
    label: Exposure
    doc: EXPTIME or EXPOSURE, in seconds.
  ra:
    type: double?
    label: RA
    doc: Right ascension of the image centre by its world coordinates, ICRS, in degrees.
  dec:
    type: double?
    label: Dec
    doc: Declination of the image centre by its world coordinates, ICRS, in degrees.
