cwlVersion: v1.2
class: CommandLineTool
label: Grab coordinates
doc: Read from the FITS headers of a product directory where the telescope looked, and at what.

requirements:
  InitialWorkDirRequirement:
    listing:
      - entryname: grabcoords.py
        entry: {$include: grabcoords.py}
hints:
  SoftwareRequirement:
    packages:
      astropy: {specs: ["https://www.astropy.org"]}

baseCommand: [python3, grabcoords.py]
inputs:
  product:
    type: Directory
    label: Product
    doc: A product directory.
    inputBinding: {position: 1}
outputs:
  # The script writes cwl.output.json.
  member:
    type: string
    label: Member
    doc: ALMA's identifier of the observation (member observation unit set).
  object:
    type: string
    label: Target
    doc: Name of the target.
  ra:
    type: double
    label: RA
    doc: Right ascension of the pointing centre in degrees, ICRS.
  dec:
    type: double
    label: Dec
    doc: Declination of the pointing centre in degrees, ICRS.
  date:
    type: string
    label: Date
    doc: When the observation began, UTC.
  frequency:
    type: double
    label: Frequency
    doc: Rest frequency in GHz.
